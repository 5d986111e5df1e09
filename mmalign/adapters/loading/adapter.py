"""What every adapter around a published checkpoint shares: options, where it is placed, and what of it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, check_positive, default_device, not_loaded
from mmalign.adapters.loading.weights import TrainedWeights
from mmalign.core.options import AtLeastOne
from mmalign.core.tensor import Device, Module


@dataclass
class PretrainedAdapter(ABC):
    """`Adapter` of a checkpoint that `load` reads; an option written here is an option of every family.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora", "full", or "frozen" (inside a reward); trained weights are float32.
        lora: of a fresh LoRA, without dropout; the family's own choice of layers unless it names others.
        dtype: of frozen weights and of the network's arithmetic (autocast).
        device: where to compute; the launch's, else the fastest there is, unless it is named.
        gradient_checkpointing: recompute the network's layers in backward.
        cached_prompts: prompts whose encodings are kept, on the CPU.
        revision: of the Hub's files.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    gradient_checkpointing: bool = False
    cached_prompts: AtLeastOne = 512
    revision: str | None = None

    module: Module = field(init=False, repr=False, compare=False)
    weights: TrainedWeights = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(self)

    if not TYPE_CHECKING:  # which knows the attributes that there are

        def __getattr__(self, name: str) -> Any:
            not_loaded(self, name)

    @property
    def name(self) -> str:
        """What run files call this adapter: a name is a file."""
        return type(self).__module__.rpartition(".")[2]

    def load(self, device: Device | str | None = None) -> Self:
        """Read the checkpoint and place it on the option `device`, on the `device` given where that is None.

        Raises:
            CheckpointError: weights that are missing, damaged or of another family.
            CapabilityError, ConfigError: a checkpoint that this adapter cannot drive, or not with these options.
        """
        place = default_device(device if self.device is None else self.device)
        self.device = place
        self.load_parts(place)
        self.weights.turns.watch(self.module)
        return self

    @abstractmethod
    def load_parts(self, device: torch.device) -> None:
        """Read the checkpoint and place it on `device`: set `module`, `weights`, and what else the family has."""

    def wrap(self, prepare: Callable[[Module], Module]) -> None:
        """Put what a launcher makes of `module` in its place, for instance DDP's, which averages gradients."""
        self.module = prepare(self.module)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters by name, float32."""
        return self.weights.trainable()

    def save(self, directory: Path) -> None:
        """Write what plain diffusers, transformers or peft loads."""
        self.weights.save(directory)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        self.weights.restore(directory)
