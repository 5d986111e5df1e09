"""All weights of one network trainable, with a frozen copy for the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mmalign.adapters.weights.reference import StartedWeights
from mmalign.core.errors import CheckpointError
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_component
from mmalign.loading.foreign import PretrainedModel
from mmalign.loading.trained import Base, write_base


class FullWeights(StartedWeights):
    """Every parameter of `network`, trained in float32.

    Args:
        network: a model by itself, or a part of one.
        base: where the network is a part: of what, and under which name.
        read: gives the named tensors of a folder that `save` wrote; by default those of its safetensors files.
        only: the one module inside that trains, the rest staying as it is.
    """

    def __init__(
        self,
        network: PretrainedModel,
        base: Base | None = None,
        read: Callable[[Path], dict[str, Tensor]] | None = None,
        only: str = "",
    ) -> None:
        self._base, self._read = base, read or read_tensors
        network.requires_grad_(not only)
        network.get_submodule(only).requires_grad_(True).float()
        super().__init__(network)

    def save(self, directory: Path) -> None:
        """Write a folder that the network class's own `from_pretrained` reads: `directory`, or of a part, inside it.

        Beside a part `base.json` says of what model, so that `directory` is a model to start from.
        """
        with loading():  # without a bar
            self._network.save_pretrained(self._folder(directory), safe_serialization=True)
        if self._base is not None:
            write_base(directory, self._base)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError on any missing, foreign or misshapen tensor."""
        folder = self._folder(directory)
        check_component(folder)
        copy_into(self._network, self._read(folder), folder)

    def _folder(self, directory: Path) -> Path:
        return directory if self._base is None else directory / self._base.component


def copy_into(network: torch.nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Give `network` the parameters of `state`, all of them, read from `folder`; raises CheckpointError otherwise."""
    own = dict(network.named_parameters())
    for what, keys in (
        ("this model does not have", state.keys() - own.keys()),
        ("are missing", own.keys() - state.keys()),
    ):
        foreign = sorted(key for key in keys if key not in dict(network.named_buffers()))
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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of all safetensors files of `folder`, by name."""
    from safetensors.torch import load_file

    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}
