"""A stack of linear layers from a safetensors file: the small heads of aesthetic and preference models."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.files import require_local
from mmalign.core.tensor import Tensor
from mmalign.rewards.models.pickled import conversion

Activation = Literal["none", "relu", "gelu", "silu", "tanh"]
Layer = tuple[Tensor, Tensor]  # weight (out, in), bias (out,)


@dataclass(frozen=True)
class Head:
    """Layers in the order they are applied, `activation` between them; the last gives one number."""

    layers: tuple[Layer, ...]
    activation: Activation = "none"

    @property
    def width(self) -> int:
        """How many features it takes."""
        return self.layers[0][0].shape[1]

    def __call__(self, features: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """One number per row, on the features' device, with gradient to them."""
        between = getattr(torch.nn.functional, self.activation) if self.activation != "none" else None
        x = features
        for i, (weight, bias) in enumerate(self.layers):
            x = torch.nn.functional.linear(between(x) if i and between else x, weight.to(x.device), bias.to(x.device))
        return x[:, 0]

    def digest(self) -> str:
        """Names the weights and the activation."""
        total = hashlib.sha256(self.activation.encode())
        for part in (part for layer in self.layers for part in layer):
            total.update(part.contiguous().numpy().tobytes())
        return total.hexdigest()[:16]


def read_head(head: str, activation: Activation = "none") -> Head:
    """The head in a safetensors file: tensors `…N.weight` (out, in) and, where there is one, `…N.bias`, by rising N.

    Without an activation the layers are one affine map: they are multiplied out, in float64.

    Raises:
        DataError: no safetensors, no layers, several stacks, layers that do not fit, more than one output.
    """
    path = require_local(head)
    layers = read_layers(path)
    if len(layers[-1][0]) != 1:
        raise DataError(f"{path}: the last layer gives {len(layers[-1][0])} numbers; a score is one.")
    made = layers if activation != "none" else [folded(layers)]
    return Head(tuple((weight.float(), bias.float()) for weight, bias in made), activation)


def read_layers(path: Path) -> list[Layer]:
    """The linear layers of a safetensors file in float64, by rising N of `…N.weight`; a missing bias is 0.

    Raises:
        DataError: no safetensors, no layers, several stacks, layers that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        how = f" Pickled weights are converted once: {conversion(path)}." if path.suffix != ".safetensors" else ""
        raise DataError(f"{path}: not a safetensors file ({error}).{how}") from None
    named = [(m[1] or "", int(m[2]), key) for key in tensors if (m := re.fullmatch(r"(.*\.)?(\d+)\.weight", key))]
    if not named:
        raise DataError(f"{path}: no linear layers 'N.weight' in it; found {', '.join(sorted(tensors)) or 'nothing'}.")
    if len(stacks := sorted({stack for stack, _, _ in named})) > 1:
        raise DataError(f"{path}: layers of several stacks ({', '.join(stacks[:4])}); keep only those of the head.")
    return _linear(path, tensors, [key for _, _, key in sorted(named)])


def folded(layers: list[Layer]) -> Layer:
    """Linear layers without activation as one affine map."""
    weight, offset = layers[0]
    for following, bias in layers[1:]:
        weight, offset = following @ weight, following @ offset + bias
    return weight, offset


def _linear(path: object, tensors: dict[str, Tensor], keys: list[str]) -> list[Layer]:
    layers: list[Layer] = []
    for key in keys:
        weight = tensors[key].double()
        if weight.ndim != 2:
            raise DataError(f"{path}: {key} is {tuple(weight.shape)}; a linear layer has two axes.")
        if layers and weight.shape[1] != len(layers[-1][0]):
            raise DataError(f"{path}: {key} takes {weight.shape[1]} features, but {len(layers[-1][0])} come in.")
        bias = tensors.get(key.removesuffix("weight") + "bias")
        layers.append((weight, weight.new_zeros(len(weight)) if bias is None else bias.double()))
    return layers
