"""Several judges of one thing: their mean, their minimum, their mean less their disagreement, or their vote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int

from mmalign.core.options import NotNegative, Positive, outside, refuse
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    Scale,
    not_positive,
    scaled_bounds,
    stacked,
    step_credit,
    valued,
    weight_column,
    worst_status,
)
from mmalign.rewards.functional import group_normalize

__all__ = ["Ensemble"]


@dataclass
class Ensemble:
    """All slots judge the same thing; `confidence` says how far they agree.

    A row is judged by the members that have a value for it, so one failing judge does not silence the others.

    Args:
        how: `mean` (by weight); `min`; `mean_minus_std`, which distrusts what they disagree on; `vote`, the weighted
            mean of +1 and -1, above or below the member's mean of the group.
        caution: standard deviations subtracted by `mean_minus_std`.
        spread: the deviation between members at which confidence is 0 (1 - std/spread; for `vote` |vote|).
        scale: `group_z` first puts the members on one scale; `raw` for members of one kind.
    """

    how: Literal["mean", "min", "mean_minus_std", "vote"] = "mean"
    caution: NotNegative = 1.0
    spread: Positive = 1.0
    scale: Scale = "group_z"
    mentions = ()

    def __post_init__(self) -> None:
        refuse(
            outside(self, ("caution",), "0 or above and finite", lambda value: 0 <= value < math.inf),
            outside(self, ("spread",), "above 0 and finite", lambda value: 0 < value < math.inf),
        )

    @property
    def differentiable(self) -> bool:
        """A vote is not."""
        return self.how != "vote"

    @property
    def relative(self) -> bool:
        """A vote is about the member's mean of the group."""
        return self.how == "vote" or self.scale == "group_z"

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        values = stacked(parts, self.scale, group)
        if self.how == "vote":
            values = torch.stack([group_normalize(value.detach(), group) for value in values]).sign()
        there = ~values.isnan()
        weight = weight_column(parts, weights, values) * there
        filled = values.where(there, torch.zeros_like(values))
        total = weight.sum(0).clamp_min(torch.finfo(values.dtype).tiny)
        mean = (weight * filled).sum(0) / total
        variance = (weight * (filled - mean).square()).sum(0) / total
        std = variance.where(variance > 0, torch.ones_like(variance)).sqrt() * (variance > 0)
        confidence = mean.abs() if self.how == "vote" else (1 - std / self.spread).clamp(0, 1)
        if self.how == "min":
            mean = values.where(there, torch.full_like(values, float("inf"))).amin(0)
        elif self.how == "mean_minus_std":
            mean = mean - self.caution * std
        scores = valued(mean, self._status(parts, there), confidence.detach() * there.any(0))
        if len(parts) == 1 and self.scale == "raw" and self.how != "vote":
            scores.per_step = step_credit(parts, dict.fromkeys(parts, 1.0))  # of one member each of them is its value
        return scores

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are not above 0: judges of one thing have no say against it."""
        return not_positive(weights, "combine: ensemble takes positive weights (a monitor has none)")

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The bounds of the widest member; `mean_minus_std` may fall below it by `caution` times half its width."""
        if self.how == "vote":
            return -1.0, 1.0
        spans = scaled_bounds(ranges, self.scale).values()
        low, high = min(a for a, _ in spans), max(b for _, b in spans)
        return low - (self.caution * (high - low) / 2 if self.how == "mean_minus_std" else 0.0), high

    def _status(self, parts: Mapping[str, Scores], there: Tensor) -> Tensor:
        status = worst_status(parts)
        judged = there.any(0)
        failed = torch.stack([part.status.to(status.device) == Status.PARSE_FAIL for part in parts.values()]).any(0)
        status_of_valued = torch.where(failed, int(Status.PARSE_FAIL), int(Status.OK)).to(status)
        return torch.where(judged, status_of_valued, status)
