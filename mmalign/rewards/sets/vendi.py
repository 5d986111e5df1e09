"""How diverse a set is: the Vendi score of its embeddings, the effective number of different outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float

from mmalign.core.options import NotNegativeOrInfinite
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.rewards.encoders import EncodedSet, make_encoder
from mmalign.rewards.functional import vendi_credit, vendi_score

__all__ = ["Vendi"]


@dataclass
class Vendi(EncodedSet):
    """The Vendi score under cosine similarity, in [1, n]; with `over: group` in its slot, diversity per prompt.

    Args:
        encoder: what embeds the outputs: a CLIP checkpoint, or an encoder's spec {name: …, options…}; required.
        order: q > 0: 1 is Shannon's; larger ones listen to the largest cluster.
    """

    encoder: str | dict[str, Any] = ""
    order: NotNegativeOrInfinite = 1.0

    def __post_init__(self) -> None:
        if not self.order > 0:
            raise ValueError(f"order must be above 0, got {self.order}")
        self.embedder = make_encoder(self.encoder)

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; NaN, which leaves the set, for one that is embedded as zeros and so has no direction."""
        embedding = super().embed(rollout)
        return embedding.masked_fill((embedding == 0).all(1, keepdim=True), float("nan"))

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """The effective number of different rows, in [1, N]: 1 where all are alike, N where all are orthogonal."""
        return vendi_score(embedding, self.order)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to the score, mean 0, in the units of leave-one-out."""
        return vendi_credit(embedding, self.order)
