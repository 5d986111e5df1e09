"""Ranked lists, rows that belong together, the frontier of KL and probes, against closed forms and other code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from mmalign.evaluation.frontier import best_of_n_curve, best_of_n_kl, reward_at_kl, tilted
from mmalign.evaluation.listwise import all_right, macro_mean, ndcg, reciprocal_rank
from mmalign.evaluation.probes import probe_right, ridge
from mmalign.evaluation.rankings import auc, auc_interval

SCORES = st.lists(st.integers(0, 3).map(float), min_size=1, max_size=3)


@given(SCORES, SCORES)
def test_lists_with_ties_are_the_mean_over_every_order(chosen: list[float], rejected: list[float]) -> None:
    """MRR and nDCG of every order that the scores allow, averaged."""
    right = [1.0] * len(chosen) + [0.0] * len(rejected)
    scores = [*chosen, *rejected]
    orders = [
        o for o in itertools.permutations(range(len(scores))) if sorted(scores, reverse=True) == [scores[i] for i in o]
    ]
    first = [1 / (1 + min(place for place, i in enumerate(order) if right[i])) for order in orders]
    assert reciprocal_rank(chosen, rejected) == pytest.approx(np.mean(first))
    for top in (0, 2):
        discount = [1 / math.log2(p + 2) if not top or p < top else 0.0 for p in range(len(scores))]
        best = sum(d * g for d, g in zip(discount, sorted(right, reverse=True), strict=True))
        each = [sum(d * right[i] for d, i in zip(discount, order, strict=True)) / best for order in orders]
        assert ndcg(scores, right, top) == pytest.approx(np.mean(each))


def test_auroc_is_mann_whitneys_u() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    assert auc(ours.tolist(), theirs.tolist()) == pytest.approx(mannwhitneyu(ours, theirs).statistic / (40 * 30))


def test_aurocs_interval_covers_what_it_says() -> None:
    """Of 300 samples of two Gaussians whose AUROC is known, about 95 % of the intervals hold it."""
    rng, truth = np.random.default_rng(0), 0.5 * (1 + math.erf(0.8 / 2))
    draws = [auc_interval(rng.normal(0.8, 1, 40).tolist(), rng.normal(0, 1, 60).tolist()) for _ in range(300)]
    assert 0.91 <= np.mean([one.low <= truth <= one.high for one in draws]) <= 0.98
    assert auc_interval([2.0, math.nan, 3.0], [1.0])[:1] == (1.0,) and auc_interval([2.0, 3.0], [1.0]).low < 0.5
    assert math.isnan(auc_interval([math.nan], [1.0]).value)


def test_auroc_of_a_tilted_gaussian_has_a_law() -> None:
    """Tilting N(0, 1) by β moves it by 1/β: AUROC = Φ(1/(β √2))."""
    rng = np.random.default_rng(0)
    for beta in (0.5, 1.0, 2.0):
        told = auc(rng.normal(1 / beta, 1, 3000).tolist(), rng.normal(0, 1, 3000).tolist())
        assert told == pytest.approx(0.5 * (1 + math.erf(1 / beta / 2)), abs=0.012)


def test_all_right_and_macro_mean_by_hand() -> None:
    assert all_right([True, False, True, True], ["a", "a", "b", "b"]) == {"a": False, "b": True}
    assert macro_mean({"a": [1, 1, 1, 0], "b": [0.0], "c": [math.nan]}) == pytest.approx(0.375)
    assert math.isnan(macro_mean({"a": []}))


def test_the_frontier_of_a_gaussian() -> None:
    """N(0, 1) tilted by β: reward 1/β at KL 1/(2 β²); best of 2 and 3 have means 1/√π and 3/(2√π)."""
    rewards = np.random.default_rng(0).normal(size=(500, 400))
    for beta in (1.0, 2.0):
        point = tilted(rewards, beta)
        assert point.reward == pytest.approx(1 / beta, abs=0.02) and point.kl == pytest.approx(0.5 / beta**2, abs=0.02)
    assert reward_at_kl(rewards, 0.5).by == pytest.approx(1.0, abs=0.03)
    curve = {point.by: point for point in best_of_n_curve(rewards)}
    assert curve[1].reward == pytest.approx(rewards.mean()) and curve[1].kl == 0
    assert curve[2].reward == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)
    for n in (2.0, 4.0, 16.0):  # never above the best policy of its KL, and near it
        best = reward_at_kl(rewards, curve[n].kl).reward
        assert best - 0.16 < curve[n].reward <= best + 1e-9


def test_best_of_n_is_the_mean_over_all_subsets_and_its_kl_is_exact() -> None:
    rewards = np.random.default_rng(1).normal(size=(3, 6))
    subsets = [max(row[list(s)]) for row in rewards for s in itertools.combinations(range(6), 4)]
    assert {p.by: p.reward for p in best_of_n_curve(rewards)}[4.0] == pytest.approx(np.mean(subsets))
    u = (np.arange(200_000) + 0.5) / 200_000  # the density ratio of the best of n at quantile u is n u^(n-1)
    for n in (2, 8):
        ratio = n * u ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(float((ratio * np.log(ratio)).mean()), abs=1e-3)


def test_ridge_is_where_the_gradient_vanishes() -> None:
    rng = np.random.default_rng(0)
    x, y = torch.tensor(rng.normal(size=(30, 4))), torch.tensor(rng.normal(size=(30, 2)))
    weights = torch.tensor(ridge(x.numpy(), y.numpy(), 3.0), requires_grad=True)
    loss = (x @ weights[:-1] + weights[-1] - y).square().sum() + 3.0 * weights[:-1].square().sum()
    loss.backward()
    assert weights.grad.abs().max() < 1e-9


def test_a_probe_names_what_is_there_and_guesses_what_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = rng.normal(size=(600, 8))
    assert abs(probe_right(features, labels).mean() - 1 / 3) < 0.08
    features[:, :3] += 3 * np.eye(3)[labels]
    assert probe_right(features, labels).mean() > 0.9
    with pytest.raises(ValueError, match="two classes"):
        probe_right(features, np.zeros(600, int))
