"""All weights of one network trainable, with a frozen copy for the reference.

The copy rests on the CPU until the first `reference()`, then stays on the network's device. Entering swaps storage
pointers, parameter by parameter: no weight is copied per call, and optimizer state and hooks keep their parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.core.errors import CheckpointError


class FullWeights:
    """Every parameter of `network` (`component` of its pipeline), trained in float32."""

    def __init__(self, network: Any, component: str) -> None:
        self._network, self._component = network, component
        network.requires_grad_(True).float()
        self._frozen = {name: p.detach().cpu().clone() for name, p in network.named_parameters()}
        self._depth = 0

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter by name."""
        return dict(self._network.named_parameters())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside it the network computes with the weights it started from; may be nested.

        Run it to its end before `backward` of a graph built outside it: the graph reads the live weights.
        """
        self._depth += 1
        if self._depth == 1:
            self._swap()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._swap()

    def save(self, directory: Path) -> None:
        """Write `directory/<component>`, which the network class's own `from_pretrained` reads."""
        self._network.save_pretrained(directory / self._component, safe_serialization=True)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError on any missing, foreign or misshapen tensor."""
        from mmalign.adapters._loading import check_component

        folder = directory / self._component
        check_component(folder)
        state = _read(folder)
        own = self.trainable()
        for what, keys in (
            ("this model does not have", state.keys() - own.keys()),
            ("are missing", own.keys() - state.keys()),
        ):
            foreign = sorted(key for key in keys if key not in dict(self._network.named_buffers()))
            if foreign:
                raise CheckpointError(f"{folder}: {len(foreign)} keys {what}, the first is '{foreign[0]}'.")
        for name, parameter in own.items():
            if state[name].shape != parameter.shape:
                raise CheckpointError(
                    f"{folder}: '{name}' is {tuple(state[name].shape)} and this model's is {tuple(parameter.shape)}."
                )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def _swap(self) -> None:
        for name, parameter in self._network.named_parameters():
            frozen = self._frozen[name].to(parameter.device)
            self._frozen[name], parameter.data = parameter.data, frozen
        # Autocast keeps low-precision copies by parameter, not by storage: they are stale now.
        torch.clear_autocast_cache()


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}
