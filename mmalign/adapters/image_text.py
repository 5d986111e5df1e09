"""Any image-text-to-text model of transformers' Auto classes: pictures and text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmalign.adapters import _spoken
from mmalign.adapters._decoder import Prefix, Steps, check_room, continued
from mmalign.adapters._head import Network
from mmalign.adapters._language import language_folder, open_language_model, open_processor
from mmalign.adapters._looking import Batch, Looking, batch_of
from mmalign.adapters._lora import LoRA
from mmalign.adapters._options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    input_dtype,
    mixed_precision,
    not_loaded,
)
from mmalign.adapters._peft import linear_endings
from mmalign.adapters._texts import Chat, Texts, stop_tokens
from mmalign.adapters._weights import Weights
from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import Inputs
from mmalign.core.types import Modality, Prompt


@dataclass
class ImageText:
    """`TokenAdapter` around `AutoModelForImageTextToText` and its processor.

    Pictures are the entries of a prompt's `media`, (3, H, W) in [0, 1], in their order; prompts with and without them
    may share a batch. A prompt, its pictures included, is forwarded once for all rows that continue it.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora", "full" (the vision tower included), or "frozen" (a judge inside a reward); trained weights are
            float32.
        lora: of a fresh LoRA, without dropout; on every linear layer of the language model unless it names others.
        start_lora: a peft adapter (Hub id or folder) to go on training; it is the reference then, and `lora` is unused.
        dtype: of frozen weights and of the network's arithmetic (autocast).
        chat: put prompts into the processor's chat template, as it came: true, false, or "auto" (if it has one).
        system: a system message before every prompt.
        chat_options: further variables of the chat template.
        processor_options: of the processor's call, e.g. `{images_kwargs: {size: {longest_edge: 512}}}`.
        stop: tokens that end a completion besides those that tokenizer, model and generation config name.
        keep_special_tokens: leave special tokens in the text of completions.
        share_prompts: off, or with gradient checkpointing, updates forward prompt and completion of every row together.
        gradient_checkpointing: recompute each layer in backward.
        attention: transformers' attention implementation; None for its own choice.
        cached_prompts: prompts whose ids and pixels are kept, on the CPU.
        revision: of the Hub.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    start_lora: str | None = None
    dtype: Dtype = "fp32"
    device: torch.device | str | None = None
    chat: Chat = "auto"
    system: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    processor_options: dict[str, Any] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    keep_special_tokens: bool = False
    share_prompts: bool = True
    gradient_checkpointing: bool = False
    attention: str | None = None
    cached_prompts: int = 64
    revision: str | None = None

    modality: ClassVar[Modality] = "text"
    event_shape: ClassVar[tuple[int, ...]] = ()

    module: nn.Module = field(init=False, repr=False, compare=False)
    network: Network = field(init=False, repr=False, compare=False)  # `module` before a launcher wraps it
    weights: Weights = field(init=False, repr=False, compare=False)
    texts: Texts = field(init=False, repr=False, compare=False)
    looking: Looking = field(init=False, repr=False, compare=False)
    vocabulary: int = field(init=False, repr=False, compare=False)
    context: int | None = field(init=False, repr=False, compare=False)
    written: Any = field(init=False, repr=False, compare=False)

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

    def __post_init__(self) -> None:
        check_counts(self, "cached_prompts")
        _spoken.check_lora(self)

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = default_device(self.device)
        folder = language_folder(self.model, self.revision)
        dtype = input_dtype(self.train, self.dtype)
        model = open_language_model(folder, dtype, self.attention, "AutoModelForImageTextToText")
        processor = open_processor(folder)
        self.looking = Looking(
            processor,
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            options=self.processor_options,
            around=_around(model.config, processor.tokenizer),
            cached=self.cached_prompts,
        )
        ends = (model.config, model.config.get_text_config(), model.generation_config)
        self.texts = Texts(
            processor.tokenizer,
            stop_tokens(processor.tokenizer, *ends, more=self.stop),
            chat=False,  # prompts are the processor's
            keep_special_tokens=self.keep_special_tokens,
            cached=1,
        )
        _spoken.place(self, model, _language_layers(model), processor)
        backbone = model.base_model if self.network.split else model
        self._takes = _spoken.accepted(backbone.forward)
        self._spatial = hasattr(model.base_model, "get_rope_index")
        return self

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """What the processor makes of each prompt: `input_ids` (L,), pixels, grids."""
        return [self.looking.inputs(prompt) for prompt in prompts]

    def features(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The hidden state before each step, with gradient."""
        if self.share_prompts and not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return continued(self._run, self._forwarded(inputs, tokens.shape[1]).select(rows), tokens, mask)
        with _spoken.checkpointed(self.network):
            return self._whole([inputs[i] for i in rows.tolist()], tokens, mask)

    @torch.no_grad()
    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Steps:
        """Forward every prompt once and stand before the first step of B rows."""
        return Steps(self._run, self._forwarded(inputs, steps).select(rows))

    def _batch(self, inputs: Sequence[Inputs], steps: int) -> Batch:
        check_room([len(prompt["input_ids"]) for prompt in inputs], steps, self.context)
        return batch_of(inputs, self.pad_id, self.network.model.base_model, self._takes, self.device)

    def _forwarded(self, inputs: Sequence[Inputs], steps: int) -> Prefix:
        """Prompts with their pictures, behind which `steps` more tokens fit."""
        asked = self._batch(inputs, steps)
        hidden, cache = self._call(asked.ids, asked.mask, asked.positions, None, True, asked.along | asked.pictures)
        return Prefix(hidden[:, -1], cache, asked.mask, asked.following)

    def _whole(self, inputs: Sequence[Inputs], tokens: Tensor, mask: Tensor) -> Tensor:
        """Prompt and completion of every row in one forward: for networks that must not keep a cache."""
        self._check_written(tokens, mask)
        asked = self._batch(inputs, tokens.shape[1])
        said, live = tokens[:, :-1], mask[:, :-1]
        more = {name: torch.cat([value, value.new_zeros(said.shape)], 1) for name, value in asked.along.items()}
        at = asked.following[:, None] + torch.arange(said.shape[1], device=said.device)
        at = at.expand(3, -1, -1) if asked.positions.dim() == 3 else at
        hidden, _ = self._call(
            torch.cat([asked.ids, said], 1),
            torch.cat([asked.mask, live], 1),
            torch.cat([asked.positions, at], -1),
            None,
            False,
            more | asked.pictures,
        )
        return hidden[:, asked.ids.shape[1] - 1 :]

    def _check_written(self, tokens: Tensor, mask: Tensor) -> None:
        config = self.network.model.config
        places = [getattr(config, name, None) for name in ("image_token_id", "image_token_index", "video_token_id")]
        found = [int(place) for place in places if place is not None and bool(((tokens == place) & mask).any())]
        if found:
            raise CapabilityError(
                f"a completion holds token {found[0]}, which stands for a picture, and would be taken for one; set "
                "adapter.share_prompts: true and gradient_checkpointing: false."
            )

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Text behind the prompts, see `_decoder.py`."""
        return self._call(ids, mask, positions.expand(3, -1, -1) if self._spatial else positions, cache, True, {})

    def _call(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: bool, more: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        given = more | ({"position_ids": positions} if "position_ids" in self._takes else {})
        with mixed_precision(ids.device, self.dtype):
            hidden, cache = self.module(
                input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **given
            )
        return hidden, cache


def _around(config: Any, tokenizer: Any) -> tuple[str, str]:
    """The tokens that a family puts before and after a picture, if its config names them (Qwen-VL)."""
    ids = [getattr(config, name, None) for name in ("vision_start_token_id", "vision_end_token_id")]
    if any(i is None or i >= len(tokenizer) for i in ids):
        return "", ""
    start, end = tokenizer.convert_ids_to_tokens(ids)
    return start, end


def _language_layers(model: Any) -> tuple[str, ...]:
    """The names of all linear layers of the language model inside `model`: the vision tower stays as it is."""
    language = model.get_decoder()
    prefix = next((name for name, part in model.named_modules() if part is language), "")
    endings = linear_endings(language)
    names = [name for name, _ in language.named_modules() if name.rpartition(".")[2] in endings]
    return tuple(f"{prefix}.{name}" if prefix else name for name in names)


__all__ = ["ImageText"]
