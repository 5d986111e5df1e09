"""Intervals against scipy, Student's closed form, brute force, and their own promise: coverage."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from mmalign.evaluation.bootstrap import (
    centred_interval,
    mean_interval,
    paired_interval,
    resampled_rows,
    win_rate,
)
from mmalign.evaluation.rates import are_rates


def test_agrees_with_scipy_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(1.5, size=400)
    ours = mean_interval(values, resamples=20_000)
    peer = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
    width = peer.confidence_interval.high - peer.confidence_interval.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(peer.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(peer.confidence_interval.high, abs=0.03 * width)


def test_clusters_agree_with_scipy_on_sums_and_sizes() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(200), rng.integers(1, 6, 200))
    values = rng.normal(size=200)[group] + 0.3 * rng.normal(size=len(group))
    sums, sizes = np.bincount(group, values), np.bincount(group)

    def mean(s, n, axis=-1):
        return s.sum(axis) / n.sum(axis)

    peer = stats.bootstrap(
        (sums, sizes), mean, paired=True, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = mean_interval(values, group, resamples=10_000)
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high), abs=0.03 * (peer.high - peer.low))
    naive = mean_interval(values, resamples=10_000)
    assert ours.high - ours.low > 1.3 * (naive.high - naive.low), "rows of a prompt were treated as independent"


def test_small_samples_are_as_wide_as_student() -> None:
    values = np.random.default_rng(3).normal(size=8)
    student = stats.t.interval(0.95, 7, values.mean(), values.std(ddof=1) / np.sqrt(8))
    ours = mean_interval(values, resamples=40_000)
    assert ours.high - ours.low == pytest.approx(student[1] - student[0], rel=0.12)
    plain = np.quantile(values[np.random.default_rng(0).integers(0, 8, (40_000, 8))].mean(1), (0.025, 0.975))
    assert plain[1] - plain[0] < 0.85 * (student[1] - student[0]), "the correction would not be needed"


@pytest.mark.parametrize(("prompts", "repeats"), [(12, 1), (40, 1), (25, 4)])
def test_covers_the_truth_as_often_as_promised(prompts: int, repeats: int) -> None:
    rng = np.random.default_rng(prompts)
    group, trials = np.repeat(np.arange(prompts), repeats), 400
    hits = 0
    for trial in range(trials):
        chance = rng.beta(2, 2, prompts)[group]  # a verifier's ticks, alike within a prompt; the true mean is 0.5
        found = mean_interval((rng.random(len(group)) < chance).astype(float), group, resamples=500, seed=trial)
        hits += found.low <= 0.5 <= found.high
    assert stats.binomtest(hits, trials, 0.95).pvalue > 1e-3, hits / trials


def test_pairing_removes_the_spread_of_the_prompts() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(0, 5, 100)
    after = before + rng.normal(0.2, 0.1, 100)
    delta = paired_interval(before, after)
    assert delta.low > 0.15 and delta.high < 0.25
    assert delta.value == pytest.approx(after.mean() - before.mean())
    flipped = paired_interval(after, before)
    assert (flipped.low, flipped.high) == pytest.approx((-delta.high, -delta.low), abs=0.005)


def test_missing_values_are_left_out_and_counted() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = mean_interval(values)
    assert found.value == 2 and found.n == 2
    assert paired_interval(values, np.array([2.0, 2.0, np.nan, 1.0])).n == 1
    empty = mean_interval(np.full(3, np.nan))
    assert empty.n == 0 and np.isnan([empty.value, empty.low, empty.high]).all()


def test_one_prompt_has_no_interval_and_equal_values_have_a_point() -> None:
    assert mean_interval(np.array([1.0, 2.0]), np.array([7, 7]))[1:3] == (-np.inf, np.inf)
    assert mean_interval(np.full(5, 0.25))[:3] == (0.25, 0.25, 0.25)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20), st.floats(-10, 10), st.floats(0.1, 10))
def test_moves_with_shift_and_scale(values: list[float], shift: float, scale: float) -> None:
    assume(
        not are_rates(np.array(values)) and not are_rates(np.array(values) * scale + shift)
    )  # which are no longer 0 and 1 after it
    one, two = (
        mean_interval(np.array(values), resamples=50),
        mean_interval(np.array(values) * scale + shift, resamples=50),
    )
    assert two[:3] == pytest.approx(tuple(v * scale + shift for v in one[:3]), abs=1e-6, rel=1e-6)


def test_large_sets_are_resampled_in_blocks() -> None:
    values = np.random.default_rng(0).random(30_000)
    found = mean_interval(values, resamples=200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 12**-0.5 / 30_000**0.5, rel=0.25)


def test_resampled_rows_keep_prompts_whole_and_are_shared() -> None:
    group = np.array([5, 5, 9, 9, 9, 2])
    draws = list(resampled_rows(group, 50, 1))
    for rows in draws:
        _, counts = np.unique(rows, return_counts=True)
        times = dict(zip(*np.unique(rows, return_counts=True), strict=True))
        assert times.get(0) == times.get(1) and times.get(2) == times.get(3) == times.get(4)
        assert sum(times.get(r, 0) for r in (0, 2, 5)) == 3 and counts.sum() == len(rows)
    again = list(resampled_rows(group, 50, 1))
    assert all((a == b).all() for a, b in zip(draws, again, strict=True))


def test_win_rate_counts_ties_as_half_and_skips_missing() -> None:
    before, after = np.array([0.0, 1, 2, 3, np.nan]), np.array([1.0, 1, 1, 4, 5])
    assert win_rate(before, after) == pytest.approx(2.5 / 4)
    assert win_rate(before, after) + win_rate(after, before) == pytest.approx(1)
    assert np.isnan(win_rate(np.array([np.nan]), np.array([1.0])))


def test_centred_interval_keeps_the_value_inside() -> None:
    resampled = np.random.default_rng(0).normal(-3, 1, 5000)  # shifted, as sets with repeated rows are
    found = centred_interval(0.0, resampled, 64)
    assert found.low == pytest.approx(-1.96, abs=0.1) and found.high == pytest.approx(1.96, abs=0.1)
    assert np.isnan(centred_interval(0.0, np.array([1.0, np.nan]), 2).low)
