"""Rules of ranked lists and of rows that belong together, pure functions of scores; higher is better."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

__all__ = ["all_right", "macro_mean", "ndcg", "reciprocal_rank"]

Values = Sequence[float]


def reciprocal_rank(chosen: Values, rejected: Values) -> float:
    """1 / the rank of the first right answer, in (0, 1]; among equal scores the mean over all their orders.

    With m right answers among the k that share the best right score, behind s better ones, the first of them stands at
    place s + j + 1 in C(k - j - 1, m - 1) of the C(k, m) orders.
    """
    best = max(chosen)
    before = sum(score > best for score in rejected)
    m = sum(score == best for score in chosen)
    k = m + sum(score == best for score in rejected)
    orders = math.comb(k, m)
    return sum(math.comb(k - j - 1, m - 1) / orders / (before + j + 1) for j in range(k - m + 1))


def ndcg(scores: Values, gains: Values, top: int = 0) -> float:
    """Discounted cumulative gain over that of the best order, in [0, 1]; equal scores share the mean of their gains.

    Järvelin & Kekäläinen 2002, with linear gains and 1/log2(rank + 1); ties after McSherry & Najork 2008.

    Args:
        scores: of N outputs.
        gains: how good each is, 0 or more; not all 0.
        top: places that count; 0: all.
    """
    score, gain = np.asarray(scores, float), np.asarray(gains, float)
    discount = 1 / np.log2(np.arange(len(score)) + 2)
    discount[top or len(score) :] = 0
    _, member = np.unique(-score, return_inverse=True)
    sizes = np.bincount(member)
    ends = np.cumsum(sizes)
    shares = [discount[end - size : end].mean() for size, end in zip(sizes, ends, strict=True)]
    return float((gain * np.asarray(shares)[member]).sum() / (np.sort(gain)[::-1] * discount).sum())


def all_right(right: Sequence[bool], sample: Sequence[Hashable]) -> dict[Hashable, bool]:
    """By sample, whether every row of it is right: ACC+ of MM-RLHF (arXiv 2502.10391), reversal under two contexts."""
    correct: dict[Hashable, bool] = {}
    for one, of in zip(right, sample, strict=True):
        correct[of] = correct.get(of, True) and bool(one)
    return correct


def macro_mean(values: Mapping[str, Values]) -> float:
    """The unweighted mean over subsets of the mean inside each; NaN values are left out, empty subsets too."""
    inside = [np.asarray(own, float) for own in values.values()]
    means = [float(own[~np.isnan(own)].mean()) for own in inside if (~np.isnan(own)).any()]
    return float(np.mean(means)) if means else math.nan
