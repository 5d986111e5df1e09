"""∏ value^weight: every factor can veto, as quality × relevance × no repetition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    map_advice,
    not_positive,
    stacked,
    valued,
    weight_column,
    worst_status,
)

__all__ = ["Product"]


@dataclass
class Product:
    """The product of value^weight, for rewards in [0, 1] (or [0, ∞)). Weights are positive.

    A reward whose range goes below 0 (as `repetition`, [-1, 0]) is refused: `map: [-1, 0]` puts it on [0, 1].
    """

    differentiable = True
    mentions = ()

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        values = stacked(parts, "raw", group)
        above = values > 0  # 0 to a power below 1 has no finite gradient
        powers = values.where(above, torch.ones_like(values)) ** weight_column(parts, weights, values)
        return valued((powers * above).prod(0), worst_status(parts))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are not above 0, and rewards that go below 0, where the product would count them as 0."""
        faults = not_positive(weights, "combine: product takes positive weights (a monitor has none)")
        return faults + [
            f"rewards.{name}: its values go below 0 {span}, where combine: product counts them as 0"
            f"{', which is always' if span[1] <= 0 else ''}; {map_advice(name, span)}."
            for name, span in ranges.items()
            if span[0] < 0 or span[1] <= 0
        ]

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The product of the bounds, cut at 0."""
        ends = [(max(low, 0.0) ** weights[n], max(high, 0.0) ** weights[n]) for n, (low, high) in ranges.items()]
        low = math.prod(low for low, _ in ends)
        return low, math.inf if any(math.isinf(high) for _, high in ends) else math.prod(high for _, high in ends)
