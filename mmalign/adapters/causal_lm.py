"""Any causal language model of transformers: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmalign.adapters._decoder import Steps, check_room, continued, forward_prompts, whole
from mmalign.adapters._full import FullWeights
from mmalign.adapters._head import Network
from mmalign.adapters._language import adapter_folder, language_folder, open_language_model, open_tokenizer
from mmalign.adapters._lora import LoRA
from mmalign.adapters._options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    input_dtype,
    mixed_precision,
    not_loaded,
    texts_only,
)
from mmalign.adapters._peft import PeftWeights, linear_endings
from mmalign.adapters._texts import Chat, Texts, padded, stop_tokens
from mmalign.adapters._weights import Weights
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Inputs
from mmalign.core.types import Modality, Prompt


@dataclass
class CausalLM:
    """`TokenAdapter` around `AutoModelForCausalLM`.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" or "full"; trained weights are float32.
        lora: of a fresh LoRA, without dropout; on every linear layer of the backbone unless it names others.
        start_lora: a peft adapter (Hub id or folder) to go on training; it is the reference then, and `lora` is unused.
        dtype: of frozen weights and of the network's arithmetic (autocast).
        chat: put prompts into the tokenizer's chat template, as it came: true, false, or "auto" (if it has one).
        system: a system message before every prompt.
        chat_options: further variables of the chat template.
        stop: tokens that end a completion besides those that tokenizer, model and generation config name.
        keep_special_tokens: leave special tokens in the text of completions.
        share_prompts: forward a prompt once for all rows that continue it, in updates too. Off, or with gradient
            checkpointing, updates forward prompt and completion together; the numbers agree up to rounding.
        gradient_checkpointing: recompute each layer in backward.
        attention: transformers' attention implementation; None for its own choice.
        cached_prompts: prompts whose token ids are kept.
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
    stop: list[str] = field(default_factory=list)
    keep_special_tokens: bool = False
    share_prompts: bool = True
    gradient_checkpointing: bool = False
    attention: str | None = None
    cached_prompts: int = 4096
    revision: str | None = None

    modality: ClassVar[Modality] = "text"
    event_shape: ClassVar[tuple[int, ...]] = ()

    module: nn.Module = field(init=False, repr=False, compare=False)
    network: Network = field(init=False, repr=False, compare=False)  # `module` before a launcher wraps it
    weights: Weights = field(init=False, repr=False, compare=False)
    texts: Texts = field(init=False, repr=False, compare=False)
    vocabulary: int = field(init=False, repr=False, compare=False)
    context: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "cached_prompts")
        faults = []
        if self.start_lora and self.train == "full":
            faults.append("start_lora: is trained on as a LoRA; set train: lora, or merge it into the model first.")
        if self.lora.dropout:
            faults.append("lora.dropout: log-probs of one text must agree each time they are asked for; set it to 0.")
        if faults:
            raise ConfigError(faults)

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = device = default_device(self.device)
        folder = language_folder(self.model, self.revision)
        model = open_language_model(folder, input_dtype(self.train, self.dtype), self.attention)
        tokenizer = open_tokenizer(folder)
        self.texts = Texts(
            tokenizer,
            stop_tokens(tokenizer, model.config.get_text_config(), model.generation_config, more=self.stop),
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            keep_special_tokens=self.keep_special_tokens,
            cached=self.cached_prompts,
        )
        config = model.config.get_text_config()
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.context = getattr(config, "max_position_embeddings", None)
        self.weights = self._trained(model)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.network = self.module = Network(model.to(device)).eval()  # what a LoRA added included
        self._positions = "position_ids" in signature(model.base_model.forward).parameters
        return self

    def _trained(self, model: Any) -> Weights:
        if self.train == "full":
            return FullWeights(model, "", lambda folder: _weights_of(type(model), folder))
        start = adapter_folder(self.start_lora) if self.start_lora else None
        targets = linear_endings(model.base_model)
        return PeftWeights(model, self.lora, targets, start=start, base=self.model, task="CAUSAL_LM")

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion."""
        return self.texts.stop_ids

    @property
    def pad_id(self) -> int:
        """What fills masked places."""
        return self.texts.pad_id

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return self.weights.trainable()

    def save(self, directory: Path) -> None:
        """Write a LoRA that plain peft loads, or a whole model (with its tokenizer) that plain transformers loads."""
        self.weights.save(directory)
        if self.train == "full":
            self.texts.tokenizer.save_pretrained(directory)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        self.weights.restore(directory)

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """`input_ids` (L,) of each prompt, in the chat template where one is used."""
        return [{"input_ids": torch.tensor(self.texts.prompt_ids(t))} for t in texts_only(prompts, "causal_lm")]

    def features(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The hidden state before each step, with gradient."""
        ids, seen = self._prompts(inputs, tokens.shape[1])
        if self.share_prompts and not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return continued(self._run, forward_prompts(self._run, ids, seen).select(rows), tokens, mask)
        with self._checkpointed():
            return whole(partial(self._run, keep=False), ids[rows], seen[rows], tokens, mask)

    def logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Logits of N steps."""
        with mixed_precision(features.device, self.dtype):
            return self.network.head(features)

    @torch.no_grad()
    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Steps:
        """Forward every prompt once and stand before the first step of B rows."""
        return Steps(self._run, forward_prompts(self._run, *self._prompts(inputs, steps)).select(rows))

    def forced(self, step: int) -> None:
        """Text fixes nothing."""

    def decode(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
        """The texts of completions."""
        return self.texts.decode(tokens, mask)

    def tokenize(self, outputs: Sequence[str]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Given texts as completions that end."""
        return self.texts.tokenize(outputs, default_device(self.device))

    def _prompts(self, inputs: Sequence[Inputs], steps: int) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask of prompts that `steps` more tokens fit behind."""
        rows = [prompt["input_ids"].tolist() for prompt in inputs]
        check_room([len(row) for row in rows], steps, self.context)
        ids, mask = padded(rows, self.pad_id, "left")
        return ids.to(self.device), mask.to(self.device)

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: bool = True) -> tuple[Tensor, Any]:
        """One call of the network, see `_decoder.py`."""
        more = {"position_ids": positions} if self._positions else {}
        with mixed_precision(ids.device, self.dtype):
            hidden, cache = self.module(
                input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **more
            )
        return hidden, cache

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """Layers recompute what they made in here, if `gradient_checkpointing`.

        transformers does so only in training mode, which would also turn dropout on; the mode is not passed down here.
        """
        layers = [m for m in self.network.modules() if getattr(m, "gradient_checkpointing", False)]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False


def _weights_of(kind: Any, folder: Path) -> dict[str, Tensor]:
    """The named weights of a saved model as its class reads them (file names may differ from those in memory)."""
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return {name: p.detach() for name, p in model.named_parameters()}


__all__ = ["CausalLM"]
