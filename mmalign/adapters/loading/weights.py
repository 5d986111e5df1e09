"""Which weights of a network train: a LoRA on it, all of it, or none. All answer the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from mmalign.adapters.loading.frozen import FrozenWeights
from mmalign.adapters.loading.full import FullWeights
from mmalign.adapters.loading.lora import LoRA, LoRAWeights
from mmalign.adapters.loading.options import Train
from mmalign.adapters.loading.peft import PeftWeights
from mmalign.adapters.loading.turns import Turns
from mmalign.loading.trained import Base


@runtime_checkable
class TrainedWeights(Protocol):
    """The trained part of a network: what an optimizer, a reference and a checkpoint need of it.

    `turns` keeps the threads that compute with it apart from one that stands at the start.
    """

    turns: Turns

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters by name, float32."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the network computes with the weights it started from."""
        ...

    def save(self, directory: Path) -> None:
        """Write what plain diffusers loads."""
        ...

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote, or raise CheckpointError."""
        ...


def make_trainable(
    train: Train, pipe: Any, base: Base, lora: LoRA, targets: Sequence[str], start: str = ""
) -> TrainedWeights:
    """Make a component of `pipe` trainable (call it before moving to a device: draws are then the same everywhere).

    `base` names it, and what else there is, `start` what a LoRA is added to. A LoRA is saved as diffusers loads it, or
    as peft does where the pipeline class has no loader of its own.
    """
    network = getattr(pipe, base.component)
    if train == "frozen":
        return FrozenWeights()
    if train == "full":
        return FullWeights(network, base)
    if lora.target_modules == "all-linear":
        targets = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)]
    if not hasattr(pipe, "save_lora_weights"):
        return PeftWeights(network, lora, targets, base=start or base.model)
    return LoRAWeights(network, base.component, type(pipe), lora, targets)
