"""What every adapter that makes text loads and answers alike; a family takes members by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.loading.frozen import FrozenWeights
from mmalign.adapters.loading.full import FullWeights
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, default_device, mixed_precision
from mmalign.adapters.loading.peft import PeftWeights
from mmalign.adapters.loading.texts import Texts
from mmalign.adapters.loading.weights import Weights
from mmalign.core.errors import ConfigError
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.loading.folders import peft_folder
from mmalign.loading.networks import open_network
from mmalign.loading.trained import named


class Speaker(Protocol):
    """The options of a language family, and what `place` fills in."""

    model: str
    train: Train
    lora: LoRA
    start_lora: str | None
    dtype: Dtype
    device: Device | str | None
    gradient_checkpointing: bool

    module: Module
    network: Any  # a `head.Network`
    weights: Weights
    texts: Texts
    vocabulary: int
    context: int | None
    written: Any


def check_lora(adapter: Speaker) -> None:
    """Raise ConfigError where the LoRA options cannot be had together."""
    if adapter.start_lora and adapter.train != "lora":
        raise ConfigError("start_lora: is trained on as a LoRA; set train: lora, or merge it into the model first.")


def place(adapter: Speaker, model: Any, targets: Sequence[str], written: Any) -> None:
    """Make `model` trainable and put it on its device: sets `network`, `module`, `weights`, `vocabulary`, `context`.

    Args:
        adapter: with its options and `device`.
        model: frozen, on the CPU.
        targets: where a fresh LoRA goes by default.
        written: the tokenizer or processor that is saved beside a whole model.
    """
    from mmalign.adapters.loading.head import Network

    adapter.vocabulary = model.get_output_embeddings().weight.shape[0]
    adapter.context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    adapter.weights = _trained(adapter, model, targets)
    if adapter.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    adapter.network = adapter.module = Network(model.to(adapter.device)).eval()  # what a LoRA added included
    adapter.weights.turns.watch(adapter.module)
    adapter.written = written


def _trained(adapter: Speaker, model: Any, targets: Sequence[str]) -> Weights:
    if adapter.train == "frozen":
        return FrozenWeights()
    if adapter.train == "full":
        return FullWeights(model, read=lambda folder: _weights_of(type(model), folder))
    start = peft_folder(adapter.start_lora) if adapter.start_lora else None
    return PeftWeights(model, adapter.lora, targets, start=start, base=named(adapter.model), task="CAUSAL_LM")


def _weights_of(kind: Any, folder: Path) -> dict[str, Tensor]:
    """The named weights of a saved model as its class reads them (file names may differ from those in memory)."""
    return {name: p.detach() for name, p in open_network(folder, kind).named_parameters()}


def accepted(forward: Callable[..., Any]) -> frozenset[str]:
    """The arguments a forward names."""
    return frozenset(signature(forward).parameters)


@property  # type: ignore[misc]
def stop_ids(self: Speaker) -> tuple[int, ...]:
    """Every token that ends a completion."""
    return self.texts.stop_ids


@property  # type: ignore[misc]
def pad_id(self: Speaker) -> int:
    """What fills masked places."""
    return self.texts.pad_id


def reference(self: Speaker) -> AbstractContextManager[None]:
    """Inside it, `module` computes with the weights it started from."""
    return self.weights.reference()


def trainable(self: Speaker) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by name."""
    return self.weights.trainable()


def save(self: Speaker, directory: Path) -> None:
    """Write a LoRA that plain peft loads, or a whole model (with its tokenizer) that plain transformers loads."""
    self.weights.save(directory)
    if self.train == "full":
        self.written.save_pretrained(directory)


def restore(self: Speaker, directory: Path) -> None:
    """Load what `save` wrote; raises CheckpointError where anything does not fit."""
    self.weights.restore(directory)


def logits(self: Speaker, features: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
    """Logits of N steps."""
    with self.weights.turns.forward(), mixed_precision(features.device, self.dtype):
        return self.network.head(features)


def forced(self: Speaker, step: int, steps: int) -> None:
    """Text fixes nothing."""


def decode(self: Speaker, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
    """The texts of completions."""
    return self.texts.decode(tokens, mask)


def tokenize(self: Speaker, outputs: Sequence[str]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Given texts as completions that end."""
    return self.texts.tokenize(outputs, default_device(self.device))


@contextmanager
def checkpointed(network: torch.nn.Module) -> Iterator[None]:
    """Layers recompute what they made in here, if gradient checkpointing was switched on.

    transformers does so only in training mode, which would also turn dropout on; the mode is not passed down here.
    """
    layers = [m for m in network.modules() if getattr(m, "gradient_checkpointing", False)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
