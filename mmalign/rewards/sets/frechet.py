"""How near a set is to a reference set: minus the Fréchet distance of their embeddings (FID, FAD in any encoder)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import ConfigError
from mmalign.core.files import require_local
from mmalign.core.options import Count
from mmalign.core.tensor import Tensor
from mmalign.rewards.encoders import EncodedSet, make_encoder
from mmalign.rewards.functional import (
    frechet_credit,
    frechet_distance,
    frechet_in_pool,
    frechet_infinity,
    frechet_leave_one_out,
    frechet_of_subsets,
    frechet_pool_credit,
)
from mmalign.rewards.functional.frechet_pool import LINEAR_FROM
from mmalign.rewards.reference_sets.statistics import Reference, encoder_of, load_reference

__all__ = ["Frechet"]


@dataclass
class Frechet(EncodedSet):
    """Minus the Fréchet distance between a set's embeddings and the reference's; one row per output.

    Values of different set sizes are not comparable (the bias falls like 1/n); within a run n is fixed. A `pool` takes
    most of the bias away.

    Args:
        reference: a folder of pictures or sounds, a `.txt` of texts, or statistics (`mmalign reference`).
        encoder: a CLIP checkpoint, or an encoder's spec {name: …, options…}; that of statistics is known, for a folder
            or a `.txt` it is required.
        credit_by: of one row: `influence`, one decomposition; `leave_one_out`, exact, for sets of up to about 100.
        pool: outputs made before (as `reference`), usually of the untrained generator: a set takes the place of as many
            of them, and the pool is scored.
        pairs: captioned sounds that measure the modality gap where the reference is text and the outputs are sounds.
        least_rows: rows that reference and pool must have; 0: a quarter of the embedding's dimensions.
    """

    reference: str
    encoder: str | dict[str, Any] = ""
    credit_by: Literal["influence", "leave_one_out"] = "influence"
    pool: str = ""
    pairs: str = ""
    least_rows: Count = 0

    def __post_init__(self) -> None:
        require_local(self.reference)
        if self.pool:
            require_local(self.pool)
            if self.credit_by == "leave_one_out":
                raise ConfigError(
                    "credit_by: leave_one_out is not offered in a pool; its influence is as good as exact."
                )
        self.encoder = self.encoder or encoder_of(self.reference)
        self.embedder = make_encoder(self.encoder)

    @cached_property
    def target(self) -> Reference:
        """The reference, embedded on first use."""
        reference = load_reference(self.reference, self.embedder, pairs=self.pairs, rows=False)
        return reference.require_covariance(f"reference {self.reference}", self.least_rows)

    @cached_property
    def made_before(self) -> Reference | None:
        """The pool, embedded on first use."""
        if not self.pool:
            return None
        pool = load_reference(self.pool, self.embedder, rows=False)
        return pool.require_covariance(f"pool {self.pool}", self.least_rows)

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """Minus the distance, at most 0 up to rounding."""
        if self.made_before is not None:
            return -frechet_in_pool(embedding, self.made_before.gaussian, self.target.gaussian)
        return -frechet_distance(embedding, self.target.gaussian)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to the score, mean 0, in the units of leave-one-out."""
        if self.made_before is not None:
            return frechet_pool_credit(embedding, self.made_before.gaussian, self.target.gaussian)
        if self.credit_by == "influence":
            return frechet_credit(embedding, self.target.gaussian)
        credit = frechet_leave_one_out(embedding, self.target.gaussian)
        return credit - credit.mean()

    def swap_scores(self, kept: Float[Tensor, "N D"], other: Float[Tensor, "N D"], start: int) -> Float[Tensor, " S"]:
        """The score with row i of `kept` replaced by row i of `other`, for each i from `start`, all at once."""
        sets, both = _swapped_sets(len(kept), start, kept.device), torch.cat([kept, other])
        if self.made_before is not None:
            return torch.stack([self.score(both[rows]) for rows in sets])
        return -frechet_of_subsets(both, sets, self.target.gaussian)

    def report(self, embedding: Float[Tensor, "N D"]) -> dict[str, Float[Tensor, ""]]:
        """For reports, not for training: "infinity", the score freed of the bias of n, where that can be told.

        It takes 64 rows, and `LINEAR_FROM` per feature.
        """
        if len(embedding) < self._enough(embedding):
            return {}
        return {"infinity": -frechet_infinity(embedding, self.target.gaussian)}

    def doubts(self, embedding: Float[Tensor, "N D"]) -> list[str]:
        """What a reader of the value should know: covariances of too few rows, and why "infinity" is left out."""
        rows, features = embedding.shape
        sides = {"the set": rows, "the reference": self.target.gaussian.count}
        sentences = [
            f"{side} has {count} rows for {features} features, fewer than a covariance of full rank takes "
            f"({features + 1}); the distance is mostly their number's"
            for side, count in sides.items()
            if 0 < count <= features
        ]
        if rows < (least := self._enough(embedding)):
            sentences.append(f"parts.infinity takes {least} rows of {features} features")
        return sentences

    def _enough(self, embedding: Tensor) -> int:
        return max(64, LINEAR_FROM * embedding.shape[1])


def _swapped_sets(rows: int, start: int, device: torch.device | str = "cpu") -> Int[Tensor, "S n"]:
    """For rows 0 … n-1 and their rivals n … 2n-1: the set with place i given to its rival, for each i from `start`."""
    places = torch.arange(start, rows, device=device)
    sets = torch.arange(rows, device=device).repeat(len(places), 1)
    sets[torch.arange(len(places), device=device), places] = places + rows
    return sets
