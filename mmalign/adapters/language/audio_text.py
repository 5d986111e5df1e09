"""Models of transformers that hear: sound and text in, text out (Qwen2-Audio, Qwen2.5-Omni's thinker, …)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from mmalign.adapters.language import _media_text
from mmalign.adapters.language._hearing import SOUNDS, around_sounds
from mmalign.adapters.language._looking import Looking
from mmalign.adapters.loading import spoken as _spoken
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, check_counts, default_device, input_dtype, not_loaded
from mmalign.adapters.loading.texts import Chat, Texts
from mmalign.adapters.loading.weights import Weights
from mmalign.core.options import AtLeastOne
from mmalign.core.tensor import Device, Module
from mmalign.core.types import Modality
from mmalign.loading.files import read_json
from mmalign.loading.folders import network_folder
from mmalign.loading.networks import open_speaker
from mmalign.loading.texts import open_processor


@dataclass
class AudioText:
    """`TokenAdapter` around `AutoModelForMultimodalLM` (of Qwen2.5-Omni, its thinker) and its processor.

    Sounds are the entries of a prompt's `media`, each an `Audio` of one row, in their order; any rate and channels, no
    longer than the model hears. Prompts with and without them may share a batch. A prompt, its sounds included, is
    forwarded once for all rows that continue it.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" or "full" (the audio tower included); trained weights are float32.
        lora: of a fresh LoRA, without dropout; on every linear layer of the language model unless it names others.
        start_lora: a peft adapter (Hub id or folder) to go on training; it is the reference then, and `lora` is unused.
        dtype: of frozen weights and of the network's arithmetic (autocast).
        chat: put prompts into the processor's chat template, as it came: true, false, or "auto" (if it has one).
        system: a system message before every prompt.
        chat_options: further variables of the chat template.
        processor_options: of the processor's call.
        stop: tokens that end a completion besides those that tokenizer, model and generation config name.
        keep_special_tokens: leave special tokens in the text of completions.
        share_prompts: off, or with gradient checkpointing, updates forward prompt and completion of every row together.
        gradient_checkpointing: recompute each layer in backward.
        attention: transformers' attention implementation; None for its own choice.
        cached_prompts: prompts whose ids and spectrograms are kept, on the CPU.
        revision: of the Hub.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    start_lora: str | None = None
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    chat: Chat = "auto"
    system: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    processor_options: dict[str, Any] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    keep_special_tokens: bool = False
    share_prompts: bool = True
    gradient_checkpointing: bool = False
    attention: str | None = None
    cached_prompts: AtLeastOne = 64
    revision: str | None = None

    modality: ClassVar[Modality] = "text"
    event_shape: ClassVar[tuple[int, ...]] = ()
    part: ClassVar[tuple[str, str]] = ("feature_extractor", "sound")

    module: Module = field(init=False, repr=False, compare=False)
    network: Any = field(init=False, repr=False, compare=False)  # `head.Network`: `module` before a launcher wraps it
    weights: Weights = field(init=False, repr=False, compare=False)
    texts: Texts = field(init=False, repr=False, compare=False)
    looking: Looking = field(init=False, repr=False, compare=False)
    vocabulary: int = field(init=False, repr=False, compare=False)
    context: int | None = field(init=False, repr=False, compare=False)
    written: Any = field(init=False, repr=False, compare=False)
    takes: Collection[str] = field(init=False, repr=False, compare=False)

    stop_ids = _spoken.stop_ids
    pad_id = _spoken.pad_id
    reference = _spoken.reference
    trainable = _spoken.trainable
    save = _spoken.save
    restore = _spoken.restore
    logits = _spoken.logits
    forced = _spoken.forced
    decode = _spoken.decode
    tokenize = _spoken.tokenize
    encode = _media_text.encode
    features = _media_text.features
    begin = _media_text.begin
    reader = _media_text.reader

    def __post_init__(self) -> None:
        check_counts(self, "cached_prompts")
        _spoken.check_lora(self)

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = default_device(self.device)
        folder = network_folder(self.model, self.revision)
        dtype = input_dtype(self.train, self.dtype)
        model = open_speaker(folder, dtype, model_class(folder), self.attention)
        processor = open_processor(folder, *self.part)
        looking = self.look(processor, around_sounds(processor))
        _media_text.place(self, model, looking)
        return self

    def look(self, processor: Any, around: tuple[str, str]) -> Looking:
        """Prompts as the processor reads them; `around` stands about media where there is no template."""
        return Looking(
            processor,
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            options=self.processor_options,
            around=around,
            sense=SOUNDS,
            cached=self.cached_prompts,
        )


def model_class(folder: Path) -> str:
    """The class of transformers that answers in text; Qwen2.5-Omni's checkpoints hold a voice besides."""
    kind = str(read_json(folder / "config.json", "a model folder has it").get("model_type", ""))
    omni = kind.startswith("qwen2_5_omni")
    return "Qwen2_5OmniThinkerForConditionalGeneration" if omni else "AutoModelForMultimodalLM"


__all__ = ["AudioText"]
