"""Σ weight × value, each reward put on a common scale first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int

from mmalign.core.protocols import Mean, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    no_weight,
    stacked,
    step_credit,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)

__all__ = ["WeightedSum"]


@dataclass
class WeightedSum:
    """The weighted sum of all slots.

    Args:
        scale: `group_z` normalises each reward within its prompt's group (normalise, then sum), so that weights mean
            influence whatever the units; the sum is not normalised again. GDPO is this under GRPO's `std: none` and
            `whiten: true`; `std: group` divides each group a second time. `running` by the mean and (population)
            deviation of all rows seen so far, those of every process; `raw` not. One slot alone has nothing to agree
            with and stays raw under `group_z`.
        missing: `propagate`: a row that lacks a part has no value; `renormalize`: it is scored on the parts it has,
            their weights scaled up to the same total.
    """

    scale: Literal["raw", "group_z", "running"] = "group_z"
    missing: Literal["propagate", "renormalize"] = "propagate"
    differentiable = True
    mentions = ()
    adapting = True
    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)
    _seen: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)  # count, mean, sum of squares

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        alone = len(parts) == 1
        values = stacked(parts, "group_z" if self.scale == "group_z" and not alone else "raw", group)
        if self.scale == "running":
            values = torch.stack([self._running(n, row) for n, row in zip(parts, values, strict=True)])
        weight = weight_column(parts, weights, values)
        if self.missing == "propagate":
            scores = valued((weight * values).sum(0), worst_status(parts))
            scores.per_step = self._steps(parts, weights, alone)
            return scores
        there = ~values.isnan()
        share = (weight.abs() * there).sum(0)
        total = (weight * values.where(there, torch.zeros_like(values))).sum(0)
        value = total * weight.abs().sum() / share.where(share > 0, torch.ones_like(share))
        status = worst_status(parts)
        failed = torch.stack([part.status.to(status.device) == Status.PARSE_FAIL for part in parts.values()]).any(0)
        kind = torch.where(failed, int(Status.PARSE_FAIL), int(Status.OK)).to(status)
        scores = valued(value, torch.where(share > 0, kind, status))
        scores.per_step = self._steps(parts, weights, True) if alone else None
        return scores

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are all 0."""
        return no_weight(weights)

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The sum's range; endless once scaled."""
        if self.scale == "raw" or (self.scale == "group_z" and len(ranges) == 1):
            return weighted_bounds(ranges, weights)
        return float("-inf"), float("inf")

    def state_dict(self) -> dict[str, Tensor]:
        """Running statistics by slot: (3,) float64."""
        return dict(self._seen)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up running statistics."""
        self._seen = {name: value.double().cpu() for name, value in state.items()}

    def _steps(self, parts: Mapping[str, Scores], weights: Mapping[str, float], alone: bool) -> Tensor | None:
        """Credit of steps on the value's scale; z-scores of several rewards have none."""
        if self.scale == "group_z" and not alone:
            return None
        scale = {name: self._moments(name)[1] if self.scale == "running" else 1.0 for name in parts}
        return step_credit(parts, {name: weights[name] / scale[name] for name in parts})

    def _running(self, name: str, value: Tensor) -> Tensor:
        """Standardised by everything seen under this name, the present rows included."""
        if self.adapting:
            self._take_in(name, value.detach()[~value.isnan()].double())
        mean, std = self._moments(name)
        return (value - mean) / std

    def _moments(self, name: str) -> tuple[float, float]:
        """Mean and deviation of what was seen; a deviation of 0 counts as 1."""
        count, mean, square = self._seen.get(name, torch.zeros(3, dtype=torch.float64)).tolist()
        return mean, (square / max(count, 1)) ** 0.5 or 1.0

    def _take_in(self, name: str, rows: Tensor) -> None:
        """Chan et al.'s update by the rows of all processes; counts and sums are those of the average process."""
        count, mean, square = self._seen.get(name, torch.zeros(3, dtype=torch.float64)).tolist()
        total, fresh = self.over_ranks(torch.stack([rows.sum(), rows.new_tensor(len(rows))])).tolist()
        here = total / fresh if fresh else 0.0
        scatter = float(self.over_ranks((rows - here).square().sum()))
        if fresh:
            gap, both = here - mean, count + fresh
            square += scatter + gap**2 * count * fresh / both
            self._seen[name] = torch.tensor([both, mean + gap * fresh / both, square], dtype=torch.float64)
