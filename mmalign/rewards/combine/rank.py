"""Σ weight × rank within the group: only the order of each reward counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    no_weight,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)
from mmalign.rewards.functional import group_rank

__all__ = ["Rank"]


@dataclass
class Rank:
    """The weighted sum of ranks in [0, 1] (worst to best of the prompt's group; ties share). Outliers count once."""

    differentiable = False
    relative = True
    mentions = ()

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        ranks = torch.stack([group_rank(part.value.detach(), group) for part in parts.values()])
        return valued((weight_column(parts, weights, ranks) * ranks).sum(0), worst_status(parts))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are all 0."""
        return no_weight(weights)

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """[0, Σ weights] for positive weights."""
        return weighted_bounds(dict.fromkeys(ranges, (0.0, 1.0)), weights)
