"""Structure first: the other rewards count only where one passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int

from mmalign.core.options import outside, refuse
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

__all__ = ["Gate"]


@dataclass
class Gate:
    """The weighted sum of the other slots' raw values where slot `by` is at least `at`, else `floor`.

    A row that fails the gate needs no value from the others; a gate without a value is passed on as its status.

    Args:
        by: the slot that decides; its weight does not matter.
        floor: the value of a row that fails; not above the least that a row which passes can get.
        at: the least passing value.
    """

    by: str
    floor: float
    at: float = 0.5
    differentiable = True

    def __post_init__(self) -> None:
        refuse(outside(self, ("floor", "at"), "finite", math.isfinite))

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return (self.by,)

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        gate = parts[self.by]
        others = {name: part for name, part in parts.items() if name != self.by}
        closed = gate.valid & ~(gate.value >= self.at)
        values = stacked(others, "raw", group) if others else torch.zeros_like(gate.value)[None]
        summed = (weight_column(others, weights, values) * values).sum(0) if others else values[0]
        status = torch.where(closed, gate.status, worst_status(parts))
        return valued(torch.where(closed, torch.full_like(summed, self.floor), summed), status)

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """A gate that every row passes or none, and a floor that is above what a passing row can get."""
        low, high = ranges[self.by]
        faults = []
        if not low < self.at <= high:
            which = "every row passes" if self.at <= low else "no row passes"
            faults.append(
                f"combine.at: {self.at:g} lies outside the values of rewards.{self.by}, above {low:g} and up to "
                f"{high:g}, so that {which}; set it between them, or {map_advice(self.by, (low, high))}."
            )
        least, _ = weighted_bounds({n: r for n, r in ranges.items() if n != self.by}, weights)
        if self.floor > least > -math.inf:
            faults.append(
                f"combine.floor: {self.floor:g} is above {least:g}, the least that a row which passes can get; "
                "lower it."
            )
        return faults

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The others' sum, or the floor."""
        low, high = weighted_bounds({n: r for n, r in ranges.items() if n != self.by}, weights)
        return min(low, self.floor), max(high, self.floor)
