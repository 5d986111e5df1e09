"""Rules that say how well scores rank answers whose worth is known; higher is better, a tie is no win.

Source of the two of RewardBench 2 (Malik et al. 2025, arXiv 2506.01937): its public code, allenai/reward-bench,
`rewardbench/utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from mmalign.evaluation.bootstrap import Interval
from mmalign.evaluation.rates import rate_interval

__all__ = ["TiesParts", "auc", "auc_interval", "best_of_n", "ties_score"]

Values = Sequence[float]


def auc(chosen: Values, rejected: Values) -> float:
    """The share of (chosen, rejected) pairs in which the chosen one scores higher; an equal score is half of one."""
    lead = np.subtract.outer(np.asarray(chosen, float), np.asarray(rejected, float))
    return float((lead > 0).mean() + 0.5 * (lead == 0).mean())


def auc_interval(positive: Values, negative: Values, level: float = 0.95) -> Interval:
    """`auc` of independent rows of two kinds, with the interval of DeLong et al. 1988 (Biometrics 44:837), in [0, 1].

    Scores that tell the kinds apart without a fault, or not at all, have no variance to estimate: their interval is
    Wilson's of as many rows as the smaller side has. NaN rows are left out; a side without rows makes all NaN.
    """
    one, other = (np.asarray(side, float) for side in (positive, negative))
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not len(one) or not len(other):
        return Interval(math.nan, math.nan, math.nan, len(one) + len(other))
    lead = np.subtract.outer(one, other)
    wins = (lead > 0) + 0.5 * (lead == 0)
    value, count = float(wins.mean()), len(one) + len(other)
    if value in (0.0, 1.0) or min(wins.shape) < 2:
        fewer = min(wins.shape)
        low, high = rate_interval(round(value * fewer), fewer, level)
        return Interval(value, low, high, count)
    error = math.sqrt(wins.mean(1).var(ddof=1) / len(one) + wins.mean(0).var(ddof=1) / len(other))
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0), count)


def best_of_n(chosen: float, rejected: Values) -> float:
    """1 if the chosen answer alone scores highest, 1/k if k share the highest score and it is among them, else 0.

    A model that cannot tell the answers apart gets 1/n, as one that guesses does.
    """
    top = max(chosen, *rejected)
    return 1 / sum(score == top for score in (chosen, *rejected)) if chosen == top else 0.0


class TiesParts(NamedTuple):
    """One prompt of RewardBench 2's Ties subset; `score` is their weighted sum, at most 1.01.

    `reference`, `tied`: every right answer scores above every wrong one, where one answer is right and where several
    are. `preferred`: the gap to the wrong ones exceeds the spread of the right ones; `preferred_hard`: so does the
    reference's gap. `margin`: tanh(gap/spread - 1), 0 without spread and gap, there to tell equals apart.
    """

    reference: float
    tied: float
    preferred: float
    preferred_hard: float
    margin: float

    @property
    def score(self) -> float:
        """.30 tied + .30 reference + .20 preferred + .20 preferred_hard + .01 margin."""
        weights = (0.30, 0.30, 0.20, 0.20, 0.01)
        return float(sum(weight * part for weight, part in zip(weights, self, strict=True)))


def ties_score(reference: tuple[Values, Values], tied: tuple[Values, Values]) -> TiesParts:
    """How one pair of prompts went: (right, wrong) scores where one answer is right, and where several are.

    The benchmark's number is the mean of `score` over pairs, which is its published form: every term is a mean.
    """
    gap, gap_reference = min(tied[0]) - max(tied[1]), min(reference[0]) - max(reference[1])
    width, least = max(tied[0]) - min(tied[0]), min(gap, gap_reference)
    return TiesParts(
        reference=float(gap_reference > 0),
        tied=float(gap > 0),
        preferred=float(gap > width),
        preferred_hard=float(least > width),
        margin=math.tanh(least / width - 1) if width else float(np.sign(least)),
    )
