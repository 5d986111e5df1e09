"""Values of a reward put on [0, 1]: low becomes 0, high becomes 1, what is outside is cut."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from mmalign.core.types import Scores

__all__ = ["mapped", "mapped_range", "span_faults"]

Span = tuple[float, float]


def mapped(scores: Scores, span: Span) -> Scores:
    """`scores` with values (v - low) / (high - low) cut to [0, 1]; NaN stays. Credit of steps is divided alike."""
    low, high = span
    credit = None if scores.per_step is None else scores.per_step / (high - low)
    return replace(scores, value=((scores.value - low) / (high - low)).clamp(0, 1), per_step=credit)


def mapped_range(bounds: Span, span: Span) -> Span:
    """The range of the mapped values of a reward whose own is `bounds`."""
    low, high = (min(max((bound - span[0]) / (span[1] - span[0]), 0.0), 1.0) for bound in bounds)
    return low, high


def span_faults(span: Span) -> list[str]:
    """A sentence where the two ends make no scale."""
    if isfinite(span[0]) and isfinite(span[1]) and span[0] < span[1]:
        return []
    return [f"map must be [low, high] with low below high, both finite, not [{span[0]:g}, {span[1]:g}]"]
