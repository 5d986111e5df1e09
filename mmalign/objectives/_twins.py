"""A contrastive term of a reward model's features: each is its own positive under other dropout (SimCSE).

Papers: SimCSE, Gao et al. 2021 (2104.08821), eq. 4; beside a reward model's loss, Secrets of RLHF II, Wang et al. 2024
(2401.06080), sec. 3: of the features of each output, or of the difference between chosen and rejected.

    L_cl,i = -log( e^{cos(v_i, v'_i)/τ} / Σ_k e^{cos(v_i, v'_k)/τ} )

v and v' are the same features under two masks of dropout. Networks run without dropout here, so it is the features
that are masked, behind the network and not inside of it (ours). Every v'_k of the minibatch is a candidate: rows are
tied, see `_tied.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.options import NotNegative, Positive, Share, must, refuse
from mmalign.core.tensor import Tensor
from mmalign.objectives._contrast import contrastive, cosine
from mmalign.objectives._tied import Facts


@dataclass
class Twins:
    """The contrastive term.

    Args:
        weight: of the term beside Bradley-Terry's.
        of: the features of each output, or the difference between those of chosen and rejected.
        dropout: the share of dimensions that are masked, in (0, 1).
        temperature: τ.
    """

    weight: NotNegative = 0.1
    of: Literal["outputs", "difference"] = "outputs"
    dropout: Share = 0.1
    temperature: Positive = 0.05

    def __post_init__(self) -> None:
        refuse(
            must(self.weight >= 0, f"twins.weight: {self.weight} must be at least 0."),
            must(0 < self.dropout < 1, f"twins.dropout: {self.dropout} must lie in (0, 1); without it twins are one."),
            must(self.temperature > 0, f"twins.temperature: {self.temperature} must be positive."),
        )

    def vectors(self, chosen: Float[Tensor, "B D"], rejected: Float[Tensor, "B D"]) -> Float[Tensor, "B K D"]:
        """What has a twin: the features of both sides, or their difference."""
        return (chosen - rejected)[:, None] if self.of == "difference" else torch.stack([chosen, rejected], 1)

    def losses(self, vectors: Float[Tensor, "N K D"], facts: Facts) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
        """The loss of every row, mean over its K vectors; `facts["twins"]` (N,) are the seeds of the rows' masks."""
        first, second = (masks(facts["twins"], vectors.shape[1:], self.dropout, which) for which in (0, 1))
        one, two = ((vectors * mask.to(vectors)).flatten(0, 1) for mask in (first, second))
        counts = (facts["weight"] != 0).repeat_interleave(vectors.shape[1])
        itself = torch.eye(len(one), dtype=torch.bool, device=one.device)
        value = contrastive(cosine(one, two), itself, itself | counts[None], self.temperature)
        value = value.view(len(vectors), -1).mean(1)
        return value, {"contrast/twins": value}


def masks(seeds: Int[Tensor, " N"], shape: Sequence[int], dropout: float, which: int) -> Float[Tensor, " N *any"]:
    """0 or 1 / (1 - dropout) in every place, of each row by its own seed: the same in any company."""
    drawn = []
    for seed in seeds.tolist():
        rng = torch.Generator().manual_seed(2 * seed + which)
        drawn.append(torch.rand(list(shape), generator=rng) >= dropout)
    return torch.stack(drawn).float() / (1 - dropout)


__all__ = ["Twins", "masks"]
