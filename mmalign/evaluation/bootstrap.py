"""Intervals by resampling prompts: rows of one prompt are drawn together, because they are not independent.

The interval is the percentile interval, widened for small samples by Hesterberg's correction ("What Teachers Should
Know About the Bootstrap", The American Statistician 69(4), 2015, the "expanded percentile" interval): with n prompts
the tail probability is Φ(t_{α/2, n-1} √(n / (n-1))) instead of α/2, about as wide as Student's interval. Below
`FEW` prompts resampling covers too little even so (0.52 of 0.95 at 2 prompts) and Student's interval itself is given;
values that are all 0 or 1, one a prompt, have the closed forms of `rates`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from numpy import ndarray

from mmalign.evaluation.rates import are_rates, paired_rate_interval, rate_interval

__all__ = [
    "Interval",
    "centred_interval",
    "mean_interval",
    "paired_interval",
    "prompt_means",
    "resampled_rows",
    "win_rate",
]

FEW = 8  # prompts: with fewer, Student's interval
BLOCK = 2_000_000  # entries of the resampling matrix held at once


class Interval(NamedTuple):
    """An estimate with its interval; `n` rows entered. All NaN where no row did."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(
    values: Float[ndarray, " B"],
    group: Shaped[ndarray, " B"] | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Return the mean of the values that exist (not NaN) and its interval.

    Args:
        values: one per row; NaN rows are left out and do not count in `n`.
        group: the prompt each row belongs to; rows of one prompt are resampled together. None: each row its own.
        level: probability the interval covers.
        resamples: bootstrap draws.
        seed: of the draws; equal seeds give equal intervals.

    A single prompt has no spread to resample: its interval is (-inf, inf). Values that are all 0 or 1, one a prompt,
    get Wilson's interval; fewer than `FEW` prompts get Student's.
    """
    values = np.asarray(values, dtype=np.float64)
    valid = values[~np.isnan(values)]
    if _one_each(values, group) and are_rates(valid):
        low, high = rate_interval(int(valid.sum()), len(valid), level)
        return Interval(float(valid.mean()), low, high, len(valid))
    return _resampled_interval(values, group, level, resamples, seed)


def paired_interval(
    before: Float[ndarray, " B"],
    after: Float[ndarray, " B"],
    group: Shaped[ndarray, " B"] | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """The mean of `after - before` over rows where both exist, and its interval; arguments as in `mean_interval`."""
    before, after = np.asarray(before, float), np.asarray(after, float)
    difference = after - before
    exists = ~np.isnan(difference)
    if _one_each(difference, group) and are_rates(before[exists], after[exists]):
        low, high = paired_rate_interval(before[exists], after[exists], level)
        return Interval(float(difference[exists].mean()), low, high, int(exists.sum()))
    return _resampled_interval(difference, group, level, resamples, seed)


def _one_each(values: Float[ndarray, " B"], group: Shaped[ndarray, " B"] | None) -> bool:
    """Are there several values that exist, each of a prompt of its own?"""
    exists = ~np.isnan(values)
    number = int(exists.sum())
    return number > 1 and (group is None or len(np.unique(np.asarray(group)[exists])) == number)


def _resampled_interval(
    values: Float[ndarray, " B"], group: Shaped[ndarray, " B"] | None, level: float, resamples: int, seed: int
) -> Interval:
    exists = ~np.isnan(values)
    if not exists.any():
        return Interval(np.nan, np.nan, np.nan, 0)
    valid = values[exists]
    sums, sizes = _by_prompt(valid, None if group is None else np.asarray(group)[exists])
    return Interval(float(valid.mean()), *_mean_bounds(sums, sizes, level, resamples, seed), int(exists.sum()))


def _by_prompt(
    values: Float[ndarray, " B"], group: Shaped[ndarray, " B"] | None
) -> tuple[Float[ndarray, " G"], Int[ndarray, " G"]]:
    """The sum of each prompt's values and how many there are."""
    _, member = np.unique(np.arange(len(values)) if group is None else group, return_inverse=True)
    return np.bincount(member, values), np.bincount(member)


def _mean_bounds(
    sums: Float[ndarray, " G"], sizes: Int[ndarray, " G"], level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The interval of the mean over prompts that bring all their rows: infinite for one, Student's for a few."""
    if len(sums) == 1:
        return -np.inf, np.inf
    if len(sums) < FEW:
        from scipy.special import stdtrit

        mean = sums.sum() / sizes.sum()
        residual = (sums - mean * sizes) / sizes.mean()  # of the ratio of two sums; plain differences for equal sizes
        error = np.sqrt((residual**2).sum() / (len(sums) * (len(sums) - 1)))
        reach = float(stdtrit(len(sums) - 1, (1 + level) / 2) * error)
        return float(mean - reach), float(mean + reach)
    low, high = np.quantile(_resampled_means(sums, sizes, resamples, seed), _tails(len(sums), level))
    return float(low), float(high)


def _resampled_means(
    sums: Float[ndarray, " G"], sizes: Int[ndarray, " G"], resamples: int, seed: int
) -> Float[ndarray, " R"]:
    """Means of `resamples` draws of G prompts with replacement, each prompt bringing all its rows."""
    rng, prompts, means = np.random.default_rng(seed), len(sums), []
    per_block = max(1, BLOCK // prompts)
    for start in range(0, resamples, per_block):
        count = min(per_block, resamples - start)
        drawn = rng.integers(0, prompts, (count, prompts))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def _tails(prompts: int, level: float) -> tuple[float, float]:
    """The two quantiles to read off, after Hesterberg's correction."""
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(stdtrit(prompts - 1, (1 - level) / 2) * np.sqrt(prompts / (prompts - 1))))
    return tail, 1 - tail


def resampled_rows(group: Shaped[ndarray, " B"], resamples: int, seed: int) -> Iterator[Int[ndarray, " N"]]:
    """Row indices of `resamples` draws of all prompts with replacement, for statistics of sets.

    The draws depend on `seed` and the grouping alone, so two evaluations of the same prompts share them.
    """
    rng = np.random.default_rng(seed)
    prompts, member = np.unique(np.asarray(group), return_inverse=True)
    rows = [np.flatnonzero(member == g) for g in range(len(prompts))]
    for _ in range(resamples):
        yield np.concatenate([rows[g] for g in rng.integers(0, len(rows), len(rows))])


def centred_interval(value: float, resampled: Float[ndarray, " R"], n: int, level: float = 0.95) -> Interval:
    """`value` with the spread of its resamples around their own mean.

    A distance between sets shifts when rows repeat, so the resamples of a set reward lie off its value; their spread is
    still that of the estimate, and the shift cancels in a difference of two evaluations that share their draws.
    """
    resampled = np.asarray(resampled, float)
    if not len(resampled) or np.isnan(resampled).any():
        return Interval(float(value), np.nan, np.nan, n)
    low, high = np.quantile(resampled - resampled.mean(), ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(value), float(value + low), float(value + high), n)


def win_rate(before: Num[ndarray, " R"], after: Num[ndarray, " R"]) -> float:
    """Return the share of entries in which `after` beats `before`; a tie is half a win. NaN pairs are left out."""
    difference = np.asarray(after, float) - np.asarray(before, float)
    difference = difference[~np.isnan(difference)]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean()) if len(difference) else float("nan")


def prompt_means(values: Float[ndarray, " B"], group: Shaped[ndarray, " B"]) -> Float[ndarray, " G"]:
    """Return the mean of each prompt's rows that have a value (not NaN); prompts without any are left out."""
    exists = ~np.isnan(values)
    _, member = np.unique(np.asarray(group)[exists], return_inverse=True)
    sizes = np.bincount(member)
    return np.asarray(np.bincount(member, values[exists], minlength=len(sizes)) / sizes)
