"""All aspects good at once: Σ weight × log σ(value - reference)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int

from mmalign.core.options import refuse
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    Scale,
    not_positive,
    stacked,
    valued,
    weight_column,
    worst_status,
)

__all__ = ["LogSigmoid"]


@dataclass
class LogSigmoid:
    """The log of "every aspect is good" when each is good with chance σ(value - reference) (Wang et al. 2024).

    A bad aspect costs more than another's excess gains, so no reward can buy off the others.

    Args:
        references: what counts as good, by slot (default 0): in the paper the 85th percentile of the untrained policy's
            rewards, per prompt; here one number per slot.
        scale: `raw` as in the paper, for rewards whose unit is a log-odds; `group_z` for others.
    """

    references: dict[str, float] = field(default_factory=dict)
    scale: Scale = "raw"
    differentiable = True

    def __post_init__(self) -> None:
        refuse([f"references.{n} must be finite, not {v}" for n, v in self.references.items() if not math.isfinite(v)])

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return tuple(self.references)

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        values = stacked(parts, self.scale, group)
        reference = weight_column(parts, {name: self.references.get(name, 0.0) for name in parts}, values)
        summed = (weight_column(parts, weights, values) * torch.nn.functional.logsigmoid(values - reference)).sum(0)
        return valued(summed, worst_status(parts))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are not above 0: a negative one would reward the bad."""
        return not_positive(weights, "combine: log_sigmoid takes positive weights (a monitor has none)")

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The bounds of the value, which is never above 0."""
        return float("-inf"), 0.0
