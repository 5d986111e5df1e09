"""A network of which nothing trains: the judges and generators inside rewards."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from mmalign.adapters.loading.turns import Turns
from mmalign.core.errors import CapabilityError


class FrozenWeights:
    """The weights as they came; there is nothing to train, to save or to restore."""

    def __init__(self) -> None:
        self.turns = Turns()

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """None."""
        return {}

    def reference(self) -> AbstractContextManager[None]:
        """The network is its own reference."""
        return nullcontext()

    def save(self, directory: Path) -> None:
        """Raises CapabilityError: there is nothing that its checkpoint does not hold."""
        raise CapabilityError("train: frozen trains nothing, so there is nothing to save; set train: lora or full.")

    restore = save
