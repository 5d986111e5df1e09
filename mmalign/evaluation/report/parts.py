"""What scores are made of: the parts of each reward before and after, with the interval of the change."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mmalign.evaluation.bootstrap import Interval, paired_interval
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.run_record import RunRecord

__all__ = ["Part", "RewardParts", "reward_parts", "row_parts"]

MOST_PARTS = 40


@dataclass
class Part:
    """One part's means (NaN where it was not measured), in per cent of [0, 1] where every value lies there."""

    name: str
    before: float
    after: float
    change: Interval
    bars: tuple[float, float] | None = None


@dataclass
class RewardParts:
    """The parts of one reward; `left_out` are those beyond the first `MOST_PARTS`."""

    reward: str
    parts: list[Part] = field(default_factory=list)
    left_out: int = 0


def reward_parts(record: RunRecord) -> list[RewardParts]:
    """Rewards whose scores have parts that occur, in the order of the evaluation; nothing without an evaluation after.

    A change is paired over prompts where both have the part; without an evaluation before, it is NaN.
    """
    if record.after is None:
        return []
    before = record.before if _paired(record.before, record.after) else None
    kept = []
    for name, scores in record.after.scores.items():
        parts = [part for part, values in scores.parts.items() if np.isfinite(values).any()]
        if parts:
            shown = [_part(part, name, before, record.after) for part in parts[:MOST_PARTS]]
            kept.append(RewardParts(name, shown, max(0, len(parts) - MOST_PARTS)))
    return kept


def row_parts(evaluation: Evaluation, row: int) -> dict[str, list[tuple[str, float]]]:
    """By reward the parts that one row has; rewards with fewer than two are left out."""
    kept = {}
    for name, scores in evaluation.scores.items():
        parts = [(part, float(values[row])) for part, values in scores.parts.items() if np.isfinite(values[row])]
        if len(parts) > 1:
            kept[name] = parts[:MOST_PARTS]
    return kept


def _paired(before: Evaluation | None, after: Evaluation) -> bool:
    return before is not None and [p.question for p in before.prompts] == [p.question for p in after.prompts]


def _part(part: str, name: str, before: Evaluation | None, after: Evaluation) -> Part:
    now = _values(after, name, part)
    earlier = np.full_like(now, np.nan) if before is None else _values(before, name, part)
    both = ~np.isnan(earlier + now)
    if both.any():
        was, is_ = float(earlier[both].mean()), float(now[both].mean())
        change = paired_interval(earlier, now, after.group)
    else:
        nothing = Interval(np.nan, np.nan, np.nan, 0)
        was, is_, change = float("nan"), float(np.nanmean(now)), nothing
    known = np.concatenate([earlier[~np.isnan(earlier)], now[~np.isnan(now)]])
    share = bool(((known >= 0) & (known <= 1)).all())
    return Part(part, was, is_, change, (100 * was if was == was else 0.0, 100 * is_) if share else None)


def _values(evaluation: Evaluation, name: str, part: str) -> Float[np.ndarray, " B"]:
    scores = evaluation.scores.get(name)
    values = None if scores is None else scores.parts.get(part)
    if values is None:
        return np.full(len(evaluation.prompts), np.nan)
    finite = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(finite), finite, np.nan)
