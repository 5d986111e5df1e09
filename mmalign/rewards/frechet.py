"""How near a set is to a reference set: minus the Fréchet distance of their embeddings (FID, FAD in any encoder)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.files import require_local
from mmalign.core.types import Modality, Rollout
from mmalign.rewards._reference import Reference, load_reference
from mmalign.rewards._swaps import swapped_sets
from mmalign.rewards.encoders import make_encoder
from mmalign.rewards.functional import frechet_credit, frechet_distance, frechet_leave_one_out, frechet_of_subsets

__all__ = ["Frechet"]


@dataclass
class Frechet:
    """Minus the Fréchet distance between a set's embeddings and the reference's.

    Values of different set sizes are not comparable (the bias falls like 1/n); within a run n is fixed.

    Args:
        reference: a folder of pictures, a `.txt` of texts, or `.safetensors` statistics (`rewards._reference`).
        encoder: a CLIP checkpoint, or an encoder's spec {name: …, options…}.
        credit_by: of one row: `influence`, one decomposition; `leave_one_out`, exact, for sets of up to about 100.
    """

    reference: str
    encoder: str | dict[str, Any] = "assets/scenes_clip"
    credit_by: Literal["influence", "leave_one_out"] = "influence"

    def __post_init__(self) -> None:
        require_local(self.reference)
        self._encoder = make_encoder(self.encoder)

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the encoder embeds."""
        return self._encoder.modalities  # type: ignore[no-any-return]

    @property
    def differentiable(self) -> bool:
        """Whether the encoder is."""
        return self._encoder.differentiable  # type: ignore[no-any-return]

    @cached_property
    def target(self) -> Reference:
        """The reference, embedded on first use."""
        return load_reference(self.reference, self._encoder)

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output."""
        return self._encoder.embed(rollout)  # type: ignore[no-any-return]

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """Minus the distance, at most 0 up to rounding."""
        return -frechet_distance(embedding, self.target.gaussian)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to the score, mean 0, in the units of leave-one-out."""
        if self.credit_by == "influence":
            return frechet_credit(embedding, self.target.gaussian)
        credit = frechet_leave_one_out(embedding, self.target.gaussian)
        return credit - credit.mean()

    def swap_scores(self, kept: Float[Tensor, "N D"], other: Float[Tensor, "N D"], start: int) -> Float[Tensor, " S"]:
        """The score with row i of `kept` replaced by row i of `other`, for each i from `start`, all at once."""
        sets = swapped_sets(len(kept), start, kept.device)
        return -frechet_of_subsets(torch.cat([kept, other]), sets, self.target.gaussian)
