"""Intervals of shares against scipy, exact coverage by summing the binomial, and verdicts over many measures."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from mmalign.evaluation.bootstrap import mean_interval, paired_interval
from mmalign.evaluation.rates import paired_rate_interval
from mmalign.evaluation.table import SummaryRow
from mmalign.evaluation.verdict import directions, verdict


def test_all_hits_leave_room_as_wilson_says() -> None:
    found = mean_interval(np.ones(64))
    assert found.value == found.high == 1.0 and found.low == pytest.approx(0.9434, abs=1e-4)
    assert mean_interval(np.zeros(64)).high == pytest.approx(1 - 0.9434, abs=1e-4)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.2, 0.5])
def test_a_rate_is_covered_as_often_as_promised(rate: float) -> None:
    covered = 0.0
    for hits in range(65):
        found = mean_interval(np.r_[np.ones(hits), np.zeros(64 - hits)])
        covered += stats.binom.pmf(hits, 64, rate) * (found.low <= rate <= found.high)
    assert covered > 0.91, covered  # the bootstrap's were 0.47, 0.72, 0.83 at the first three


@pytest.mark.parametrize(("up", "down"), [(0.0, 0.0), (0.02, 0.02), (0.05, 0.01), (0.3, 0.1)])
def test_a_paired_difference_of_rates_is_covered(up: float, down: float) -> None:
    n, covered, total = 40, 0.0, 0.0
    for gained, lost in product(range(41), range(41)):
        if gained + lost > n:
            continue
        chance = stats.multinomial.pmf([gained, lost, n - gained - lost], n, [up, down, 1 - up - down])
        before = np.r_[np.zeros(gained), np.ones(lost), np.ones(n - gained - lost)]
        after = np.r_[np.ones(gained), np.zeros(lost), np.ones(n - gained - lost)]
        low, high = paired_rate_interval(before, after)
        covered += chance * (low <= up - down <= high)
        total += chance
    assert total == pytest.approx(1, abs=1e-6) and covered > 0.93, covered


def test_no_difference_is_not_certain() -> None:
    same = np.tile([0.0, 1.0], 32)
    found = paired_interval(same, same)
    assert found.value == 0 and found.low == pytest.approx(-found.high) and 0.02 < found.high < 0.05


@pytest.mark.parametrize("prompts", [2, 3, 4, 7])
def test_few_prompts_have_students_interval(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    hits = 0
    for _ in range(400):
        values = rng.normal(size=prompts)
        found = mean_interval(values)
        low, high = stats.t.interval(0.95, prompts - 1, values.mean(), stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high))
        hits += found.low <= 0 <= found.high
    assert stats.binomtest(hits, 400, 0.95).pvalue > 1e-3


def test_few_prompts_of_several_rows_are_as_wide_as_their_means() -> None:
    group = np.repeat(np.arange(4), 3)
    values = np.random.default_rng(0).normal(size=12)
    means = values.reshape(4, 3).mean(1)
    found = mean_interval(values, group)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 3, means.mean(), stats.sem(means)))


@pytest.mark.parametrize("measures", [1, 3, 10])
def test_nothing_moved_is_seldom_called_better_or_worse(measures: int) -> None:
    rng, said = np.random.default_rng(measures), 0
    for _ in range(1500):
        deltas = rng.normal(size=measures)
        rows = [SummaryRow(f"m{i}", "verifier", 0.0, d, d, (d - 1.96, d + 1.96), 64) for i, d in enumerate(deltas)]
        said += not verdict(rows)[1].startswith("No change")
    assert said / 1500 < 0.065, said / 1500  # without Holm: 0.14 of three, 0.40 of ten


def test_holm_keeps_what_is_clear_and_leaves_the_doubtful() -> None:
    rows = [
        SummaryRow("clear", "verifier", 0.0, 1.0, 1.0, (0.7, 1.3), 64),
        SummaryRow("doubtful", "verifier", 0.0, 1.0, 1.0, (0.01, 1.99), 64),
        SummaryRow("none", "verifier", 0.0, 0.0, 0.0, (-1.0, 1.0), 64),
    ]
    assert directions(rows) == ["up", "even", "even"]
    assert directions(rows[1:2]) == ["up"]
