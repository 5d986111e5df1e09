"""Unit features of a CLIP-family model, for pictures and for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source

__all__ = ["ClipEncoder"]


@dataclass
class ClipEncoder(ReadsClip):
    """Pictures through the vision tower, texts through the text tower, L2-normalised. Options as reward `clip`'s."""

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    processor: str = ""
    modalities = frozenset({"image", "text"})
    differentiable = True

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend, self.processor)

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; with gradient for pictures that carry it."""
        output = rollout.output
        return self.towers.images(output) if isinstance(output, Tensor) else self.texts(output)

    def images(self, pictures: Sequence[Float[Tensor, "3 H W"]]) -> Float[Tensor, "N D"]:
        """Pictures of any sizes, no gradient."""
        with torch.no_grad():
            return torch.cat([self.towers.images(picture[None]) for picture in pictures])

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Texts, no gradient; on the model's device."""
        towers = self.towers
        return towers.texts(texts, towers.module.logit_scale.device)
