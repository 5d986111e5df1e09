"""How pleasing a picture is, whatever its prompt: an affine map of CLIP features, as LAION's aesthetic predictor."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import require_local
from mmalign.core.types import Rollout, Scores
from mmalign.rewards._clip_towers import Backend, Source, Towers, load_towers

__all__ = ["Aesthetic"]


@dataclass
class Aesthetic:
    """w · feature + b of the L2-normalised CLIP feature of a picture; differentiable in the pixels.

    LAION's head (ViT-L/14) is five linear layers with dropout and no activation between them: at evaluation one affine
    map, and they are folded into one here.

    Args:
        head: safetensors of linear layers named `…N.weight` (out, in) and `…N.bias`, applied in the order of N; the
            last has one output.
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag.
        backend: which library reads `checkpoint`.
        range: of the values; LAION's raters gave 1 to 10, predictions of odd pictures lie outside.
    """

    head: str
    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    range: tuple[float, float] = (-20.0, 30.0)
    modalities = frozenset({"image"})
    differentiable = True
    deterministic = True

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)
        require_local(self.head)

    @property
    def towers(self) -> Towers:
        """The CLIP model, loaded on first use."""
        return load_towers(self._source)

    @cached_property
    def affine(self) -> tuple[Float[Tensor, " D"], Float[Tensor, ""]]:
        """The folded head: weights and offset."""
        return folded(self.head)

    def fingerprint(self) -> str:
        """Of weights, preprocessing and head."""
        head = torch.cat([self.affine[0], self.affine[1][None]]).numpy().tobytes()
        return f"{self.towers.fingerprint} {hashlib.sha256(head).hexdigest()[:16]}"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures."""
        features = self.towers.images(rollout.output)
        weight, offset = (part.to(features.device) for part in self.affine)
        if features.shape[1] != len(weight):
            raise ConfigError(
                f"head: {self.head} takes {len(weight)} features, but the CLIP model gives {features.shape[1]}."
            )
        return Scores.of(features @ weight + offset)


def folded(head: str) -> tuple[Float[Tensor, " D"], Float[Tensor, ""]]:
    """Linear layers in a safetensors file as one affine map, multiplied out in float64.

    Raises:
        DataError: no such file, no layers, layers that do not fit, or more than one output.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = require_local(head)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file ({error}).") from None
    layers = sorted((int(m[1]), key) for key in tensors if (m := re.search(r"(?:^|\.)(\d+)\.weight$", key)))
    if not layers:
        raise DataError(f"{path}: no linear layers 'N.weight' in it; found {', '.join(sorted(tensors)) or 'nothing'}.")
    first = tensors[layers[0][1]]
    weight, offset = torch.eye(first.shape[1], dtype=torch.float64), torch.zeros(first.shape[1], dtype=torch.float64)
    for _, key in layers:
        layer = tensors[key].double()
        if layer.shape[1] != len(weight):
            raise DataError(f"{path}: {key} takes {layer.shape[1]} features, but {len(weight)} come in.")
        weight, offset = layer @ weight, layer @ offset
        if (bias := tensors.get(key.removesuffix("weight") + "bias")) is not None:
            offset = offset + bias.double()
    if len(weight) != 1:
        raise DataError(f"{path}: the last layer gives {len(weight)} numbers; an aesthetic score is one.")
    return weight[0].float(), offset[0].float()
