"""Any causal language model of transformers: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.language._decoder import Steps, check_room, continued, forward_prompts, whole
from mmalign.adapters.language._reader import Reader, context_in, reading_folder
from mmalign.adapters.loading import spoken as _spoken
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    input_dtype,
    mixed_precision,
    not_loaded,
    texts_only,
)
from mmalign.adapters.loading.peft import linear_endings
from mmalign.adapters.loading.texts import Chat, Texts, padded, stop_tokens
from mmalign.adapters.loading.weights import Weights
from mmalign.core.gradient import without_gradient
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, Prompt
from mmalign.loading.folders import network_folder
from mmalign.loading.networks import open_speaker
from mmalign.loading.texts import open_tokenizer


@dataclass
class CausalLM:
    """`TokenAdapter` around `AutoModelForCausalLM`.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora", "full", or "frozen" (a judge inside a reward); trained weights are float32.
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
    device: Device | str | None = None
    chat: Chat = "auto"
    system: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    keep_special_tokens: bool = False
    share_prompts: bool = True
    gradient_checkpointing: bool = False
    attention: str | None = None
    cached_prompts: AtLeastOne = 4096
    revision: str | None = None

    modality: ClassVar[Modality] = "text"
    event_shape: ClassVar[tuple[int, ...]] = ()

    module: Module = field(init=False, repr=False, compare=False)
    network: Any = field(init=False, repr=False, compare=False)  # `head.Network`: `module` before a launcher wraps it
    weights: Weights = field(init=False, repr=False, compare=False)
    texts: Texts = field(init=False, repr=False, compare=False)
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
        folder = network_folder(self.model, self.revision)
        model = open_speaker(folder, input_dtype(self.train, self.dtype), attention=self.attention)
        tokenizer = open_tokenizer(folder)
        ends = (model.config.get_text_config(), model.generation_config)
        self.texts = self._texts(tokenizer, stop_tokens(tokenizer, *ends, more=self.stop))
        self._positions = "position_ids" in _spoken.accepted(model.base_model.forward)
        _spoken.place(self, model, linear_endings(model.base_model), tokenizer)
        return self

    def reader(self, fetch: bool = True) -> Reader:
        """What counts tokens of prompts and texts, without the model; CheckpointError where there is no tokenizer."""
        folder = reading_folder(self.model, self.revision, fetch)
        tokenizer = open_tokenizer(folder)
        texts = self._texts(tokenizer, stop_tokens(tokenizer, more=self.stop))

        def length(prompt: Prompt) -> int:
            return len(texts.prompt_ids(*texts_only([prompt], "causal_lm")))

        return Reader(texts, length, context_in(folder))

    def _texts(self, tokenizer: Any, stops: Sequence[int]) -> Texts:
        return Texts(
            tokenizer,
            stops,
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            keep_special_tokens=self.keep_special_tokens,
            cached=self.cached_prompts,
        )

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """`input_ids` (L,) of each prompt, in the chat template where one is used."""
        return [{"input_ids": torch.tensor(self.texts.prompt_ids(t))} for t in texts_only(prompts, "causal_lm")]

    def features(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The hidden state before each step, with gradient."""
        ids, seen = self._prompts(inputs, rows, mask.sum(1))
        if self.share_prompts and not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return continued(self._run, forward_prompts(self._run, ids, seen).select(rows), tokens, mask)
        with _spoken.checkpointed(self.network):
            return whole(partial(self._run, keep=False), ids[rows], seen[rows], tokens, mask)

    @without_gradient
    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Steps:
        """Forward every prompt once and stand before the first step of B rows."""
        ids, seen = self._prompts(inputs, rows, torch.full_like(rows, steps))
        return Steps(self._run, forward_prompts(self._run, ids, seen).select(rows))

    def _prompts(self, inputs: Sequence[Inputs], rows: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask of prompts, each of which `steps` (B,) more tokens of its `rows` fit behind."""
        asked = [prompt["input_ids"].tolist() for prompt in inputs]
        check_room([len(asked[i]) for i in rows.tolist()], steps.tolist(), self.context)
        ids, mask = padded(asked, self.pad_id, "left")
        return ids.to(self.device), mask.to(self.device)

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: bool = True) -> tuple[Tensor, Any]:
        """One call of the network, see `_decoder.py`."""
        more = {"position_ids": positions} if self._positions else {}
        with mixed_precision(ids.device, self.dtype):
            hidden, cache = self.module(
                input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **more
            )
        return hidden, cache


__all__ = ["CausalLM"]
