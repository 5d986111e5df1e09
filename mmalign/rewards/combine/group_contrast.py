"""A bonus for a behaviour in the groups where it helps to be right, a penalty where it hurts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Int

from mmalign.core.options import NotNegative, outside, refuse
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    map_advice,
    stacked,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)
from mmalign.rewards.functional import group_contrast

__all__ = ["GroupContrast"]


@dataclass
class GroupContrast:
    """Σ w r of the other slots + w_b M 1[behaviour], with M in {-1, 0, 1} by what the row's own group shows.

    Group Contrastive Policy Optimization (GeometryZero, 2506.07160): M is the sign of the mean of `correct` with the
    behaviour less that without (`functional.group_contrast`). The paper samples a sub-group that must show the
    behaviour and one that must not; here both are what was drawn, and a group in which only one occurs has M = 0. The
    behaviour is any slot: a tool was called, the prompt was rewritten, the answer was thought about. The weight of its
    slot is the bonus.

    Args:
        correct: the slot that tells right from wrong.
        behaviour: the slot that says whether the behaviour shows; its values count for nothing else.
        at: the least value of `behaviour` with which it shows.
        eps: a difference of means up to this is none.
    """

    correct: str
    behaviour: str
    at: float = 0.5
    eps: NotNegative = 0.0
    differentiable = False
    relative = True

    def __post_init__(self) -> None:
        same = [] if self.correct != self.behaviour else ["correct and behaviour must be two slots"]
        refuse(outside(self, ("at",), "finite", math.isfinite), same)

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return self.correct, self.behaviour

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        correct, behaviour = parts[self.correct], parts[self.behaviour]
        shows = behaviour.value.detach().to(correct.value.device) >= self.at
        evidence = correct.valid & behaviour.valid.to(correct.valid.device)
        mask = group_contrast(correct.value.detach(), shows, group, evidence, self.eps)
        others = {name: part for name, part in parts.items() if name != self.behaviour}
        values = stacked(others, "raw", group).detach()
        summed = (weight_column(others, weights, values) * values).sum(0)
        return valued(summed + weights[self.behaviour] * mask * shows, worst_status(parts))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """A bonus that is none, and a behaviour that every output shows or none can."""
        bonus, (low, high) = weights[self.behaviour], ranges[self.behaviour]
        faults = []
        if not bonus > 0:
            faults.append(f"rewards.{self.behaviour}.weight: {bonus:g} is the bonus of group_contrast; set it above 0.")
        if not low < self.at <= high:
            faults.append(
                f"combine.at: {self.at:g} lies outside the values of rewards.{self.behaviour}, above {low:g} and up to "
                f"{high:g}; set it between them, or {map_advice(self.behaviour, (low, high))}."
            )
        return faults

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The others' sum, and the bonus to either side."""
        low, high = weighted_bounds({n: r for n, r in ranges.items() if n != self.behaviour}, weights)
        bonus = abs(weights[self.behaviour])
        return low - bonus, high + bonus
