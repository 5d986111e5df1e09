"""Adapters around a language model: a prompt in, which the family reads, and text out.

A prompt is forwarded once for all rows that continue it, see `prefix.py`. A family says how prompts become inputs
(`encode`), how they are forwarded (`forward_prompts`, `forward_whole`) and how its network is called (`call_network`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.bases.pretrained_adapter import default_device, mixed_precision
from mmalign.adapters.bases.transformers_adapter import TransformersAdapter, checkpointed
from mmalign.adapters.tokens.prefix import Prefix, Steps, continued
from mmalign.adapters.tokens.texts import Chat, Texts, max_positions
from mmalign.adapters.weights.full import FullWeights
from mmalign.adapters.weights.peft import PeftWeights
from mmalign.adapters.weights.reference import FrozenWeights, TrainedWeights
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Modality, Prompt
from mmalign.loading.foreign import Cache, PretrainedModel, Processor, Tokenizer
from mmalign.loading.networks import open_network
from mmalign.loading.trained import named


@dataclass
class TextAdapter(TransformersAdapter):
    """`TokenAdapter` of text: a step is one token, and a completion B strings.

    Args:
        lora: of a fresh LoRA, without dropout; on every linear layer of the language model unless it names others.
        chat: put prompts into the chat template, as it came: true, false, or "auto" (if there is one).
        system: a system message before every prompt.
        chat_options: further variables of the chat template.
        stop: tokens that end a completion besides those that tokenizer, model and generation config name.
        keep_special_tokens: leave special tokens in the text of completions.
        share_prompts: forward a prompt once for all rows that continue it, in updates too. Off, or with gradient
            checkpointing, updates forward prompt and completion of every row together; the numbers agree up to
            rounding.
        gradient_checkpointing: recompute each layer in backward.
        cached_prompts: prompts whose inputs are kept, on the CPU.
    """

    chat: Chat = "auto"
    system: str = ""
    chat_options: dict[str, Any] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    keep_special_tokens: bool = False
    share_prompts: bool = True

    modality: ClassVar[Modality] = "text"
    event_shape: ClassVar[tuple[int, ...]] = ()

    texts: Texts = field(init=False, repr=False, compare=False)
    vocabulary: int = field(init=False, repr=False, compare=False)
    context: int | None = field(init=False, repr=False, compare=False)
    preprocessor: Tokenizer | Processor = field(
        init=False, repr=False, compare=False
    )  # what is saved beside a whole model

    def place(
        self, model: PretrainedModel, targets: Sequence[str], preprocessor: Tokenizer | Processor, device: torch.device
    ) -> None:
        """Make `model`, frozen and on the CPU, trainable, and put it on `device`.

        Args:
            model: of transformers.
            targets: where a fresh LoRA goes by default.
            preprocessor: the tokenizer or processor that is saved beside a whole model.
            device: where it computes.
        """
        from mmalign.adapters.tokens.network import Network

        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.context = max_positions(model.config)
        self.weights = self._trained(model, targets)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.network = self.module = Network(self.placed(model, device)).eval()  # what a LoRA added included
        self.preprocessor = preprocessor

    def _trained(self, model: PretrainedModel, targets: Sequence[str]) -> TrainedWeights:
        if self.train == "lora":
            base = named(self.model)
            return PeftWeights(model, self.lora, targets, **self.beginning(model), base=base, task="CAUSAL_LM")
        self.lay_start(model)
        if self.train == "frozen":
            return FrozenWeights()
        return FullWeights(model, read=lambda folder: _weights_of(type(model), folder))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion."""
        return self.texts.stop_ids

    @property
    def pad_id(self) -> int:
        """What fills masked places."""
        return self.texts.pad_id

    def save(self, directory: Path) -> None:
        """Write a LoRA that plain peft loads, or a whole model (with its tokenizer) that plain transformers loads."""
        super().save(directory)
        if self.train == "full":
            self.write_beside(directory)

    def write_beside(self, directory: Path) -> None:
        """Write the tokenizer or processor."""
        self.preprocessor.save_pretrained(directory)

    @abstractmethod
    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """Return the model inputs of each prompt, `input_ids` (L,) among them, unpadded."""

    @abstractmethod
    def forward_prompts(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: Int[Tensor, " B"]) -> Prefix:
        """Forward every prompt once; DataError where `steps` more tokens of one of its `rows` do not fit behind."""

    @abstractmethod
    def forward_whole(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Return the hidden state before each step, forwarding prompt and completion together, without a cache."""

    @abstractmethod
    def call_network(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Forward text behind what `cache` holds, see `prefix.py`."""

    def features(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Return the hidden state (B, T, D) before each step, with gradient."""
        if self.share_prompts and not (self.gradient_checkpointing and torch.is_grad_enabled()):
            prefix = self.forward_prompts(inputs, rows, mask.sum(1)).take_rows_(rows)
            return continued(self.call_network, prefix, tokens, mask)
        with checkpointed(self.network):
            return self.forward_whole(inputs, rows, tokens, mask)

    @without_gradient
    def begin(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Steps:
        """Forward every prompt once and stand before the first step of B rows."""
        prefix = self.forward_prompts(inputs, rows, torch.full_like(rows, steps)).take_rows_(rows)
        return Steps(self.call_network, prefix)

    def logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return the logits (N, V) of N hidden states (N, D), with gradient."""
        with self.weights.lock.forward(), mixed_precision(features.device, self.dtype):
            return self.network.head(features)

    def forced(self, step: int, steps: int) -> None:
        """Return None: text fixes no entry of a step."""

    def decode(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
        """Return the texts of completions (B, T), without what ends them."""
        return self.texts.decode(tokens, mask)

    def tokenize(self, outputs: Sequence[str]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Return B texts as completions that end: tokens (B, T) and mask (B, T), right-padded."""
        return self.texts.tokenize(outputs, default_device(self.device))

    def tokenize_behind(
        self, prompts: Sequence[Prompt], outputs: Sequence[str]
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Return B given outputs, `Answer`s among them, behind their prompts: tokens, mask, and what is learned."""
        return self.texts.tokenize_behind(prompts, outputs, default_device(self.device))


def _weights_of(kind: type[Any], folder: Path) -> dict[str, Tensor]:
    """The named weights of a saved model as its class reads them (file names may differ from those in memory)."""
    return {name: p.detach() for name, p in open_network(folder, kind).named_parameters()}
