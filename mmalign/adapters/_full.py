"""All weights of one network trainable, with a frozen copy for the reference."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.adapters._start import Start
from mmalign.core.errors import CheckpointError
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_component


class FullWeights:
    """Every parameter of `network` (`component` of its pipeline, "" for a model by itself), trained in float32.

    `read` gives the named tensors of a folder that `save` wrote; by default those of its safetensors files. `only`
    names the one module inside that trains, the rest staying as it is.
    """

    def __init__(
        self, network: Any, component: str, read: Callable[[Path], dict[str, Tensor]] | None = None, only: str = ""
    ) -> None:
        self._network, self._component, self._read = network, component, read or _read
        network.requires_grad_(not only)
        network.get_submodule(only).requires_grad_(True).float()
        self._start = Start(self.trainable())
        self.turns = self._start.turns

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, by name."""
        return {name: p for name, p in self._network.named_parameters() if p.requires_grad}

    def reference(self) -> AbstractContextManager[None]:
        """Inside it the network computes with the weights it started from; see `Start`."""
        return self._start.swapped_in()

    def save(self, directory: Path) -> None:
        """Write `directory/<component>`, which the network class's own `from_pretrained` reads."""
        with loading():  # without a bar
            self._network.save_pretrained(directory / self._component, safe_serialization=True)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError on any missing, foreign or misshapen tensor."""
        folder = directory / self._component
        check_component(folder)
        state = self._read(folder)
        own = dict(self._network.named_parameters())
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


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}
