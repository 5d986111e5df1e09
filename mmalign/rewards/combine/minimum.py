"""The worst of all rewards: min over weight × value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    Scale,
    scaled_bounds,
    stacked,
    step_credit,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)

__all__ = ["Minimum"]


@dataclass
class Minimum:
    """The smallest of weight × value: work goes where it is worst.

    Args:
        scale: `group_z` compares places within the group; `raw` compares values as they are, on one common scale.
    """

    scale: Scale = "group_z"
    differentiable = True
    mentions = ()

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        values = stacked(parts, self.scale, group)
        scores = valued((weight_column(parts, weights, values) * values).amin(0), worst_status(parts))
        if len(parts) == 1 and self.scale == "raw":
            scores.per_step = step_credit(parts, weights)
        return scores

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights of 0, whose reward would stand as a constant 0 among the others."""
        stands = (
            "combine: minimum takes the least of weight × value, among which it would stand as 0; make it a monitor"
        )
        return [f"rewards.{name}.weight: 0; {stands}." for name, weight in weights.items() if weight == 0]

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The least of the lower bounds, the least of the upper."""
        ends = [weighted_bounds({n: r}, weights) for n, r in scaled_bounds(ranges, self.scale).items()]
        return min(low for low, _ in ends), min(high for _, high in ends)
