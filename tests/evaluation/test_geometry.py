"""Measures of features against loops, closed forms and scikit-like solvers in public use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

from mmalign.evaluation.geometry import (
    class_tolerance,
    contrastive_pca,
    effective_rank,
    first_ranks,
    reciprocal_ranks,
    separation,
    uniformity,
)
from mmalign.evaluation.probes import centroids, distances, logistic, probe_right


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_uniformity_and_tolerance_by_a_loop() -> None:
    rows, labels = normal(7, 3), np.array(list("aabbbca"))
    unit = [row / np.linalg.norm(row) for row in rows]
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    want = math.log(sum(math.exp(-2 * float(((unit[i] - unit[j]) ** 2).sum())) for i, j in pairs) / len(pairs))
    assert uniformity(rows) == pytest.approx(want)
    same = [float(unit[i] @ unit[j]) for i, j in pairs if labels[i] == labels[j]]
    assert class_tolerance(rows, labels) == pytest.approx(sum(same) / len(same))
    assert uniformity(np.ones((4, 3))) == pytest.approx(0) and uniformity(-rows) == pytest.approx(want)
    assert math.isnan(class_tolerance(rows, np.arange(7)))
    # Four corners of a square: two neighbours at squared distance 2, the opposite one at 4.
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert uniformity(square) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))


def test_effective_rank_counts_directions() -> None:
    rows = normal(4000, 5, seed=1)
    assert effective_rank(rows) == pytest.approx(5, abs=0.02)
    assert effective_rank(rows * np.array([1, 1, 0, 0, 0])) == pytest.approx(2, abs=0.01)
    assert effective_rank(np.ones((4, 3))) == 1


def test_ranks_by_a_loop_and_with_ties() -> None:
    queries, targets = normal(5, 4), normal(6, 4, seed=1)
    rng = np.random.default_rng(2)
    right, among = rng.random((5, 6)) < 0.4, rng.random((5, 6)) < 0.8
    right[3] = False
    ranks, reciprocal = first_ranks(queries, targets, right, among), reciprocal_ranks(queries, targets, right, among)
    for i in range(5):
        near = [float(queries[i] @ t / np.linalg.norm(queries[i]) / np.linalg.norm(t)) for t in targets]
        order = [j for j in sorted(range(6), key=lambda j: -near[j]) if among[i, j]]
        place = next((at for at, j in enumerate(order, 1) if right[i, j]), None)
        assert (math.isnan(ranks[i]) and math.isnan(reciprocal[i])) if place is None else ranks[i] == place
        assert place is None or reciprocal[i] == pytest.approx(1 / place)
    alike = np.array([[1.0, 0], [1, 0], [0, 1]])
    one = np.array([[True, False, False]])
    assert first_ranks(alike[:1], alike, one).tolist() == [2]  # as near: the wrong one stands before
    assert reciprocal_ranks(alike[:1], alike, one).tolist() == [0.75]  # the mean of both orders


def test_contrastive_pca_finds_what_only_one_set_has() -> None:
    rng = np.random.default_rng(0)
    shared = np.diag([5.0, 4, 3, 1, 1, 1, 1, 1])
    basis, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    background, target = (rng.normal(size=(3000, 8)) @ shared for _ in range(2))
    target[:, 5] += rng.choice([0.0, 4.0], size=3000)
    own = basis[5]
    found = contrastive_pca(target @ basis, background @ basis)
    assert abs(float(found.vectors[:, 0] @ own)) > 0.95
    plain = contrastive_pca(target @ basis, background @ basis, alpha=0.0)
    assert abs(float(plain.vectors[:, 0] @ own)) < 0.2
    covariance = np.cov((target @ basis).T) - np.cov((background @ basis).T)
    vector = found.vectors[:, 0]
    np.testing.assert_allclose(covariance @ vector, found.values[0] * vector, atol=1e-8)
    along, behind = target @ basis @ vector, background @ basis @ vector
    assert along.mean() > behind.mean()


def test_separation_by_a_loop() -> None:
    one, other = np.array([0.0, 1, 1, 3]), np.array([0.0, 1, 2])
    want = sum((a > b) + 0.5 * (a == b) for a in one for b in other) / 12
    assert separation(one, other) == pytest.approx(want)


def test_the_logistic_probe_is_at_its_optimum() -> None:
    rows, labels = normal(60, 4), np.random.default_rng(1).integers(0, 3, 60)
    targets = (labels[:, None] == np.arange(3)).astype(float)
    weights = logistic(rows, targets, 0.7)

    def loss(flat: np.ndarray) -> float:
        table, value = flat.reshape(5, 3), 0.0
        for row, label in zip(rows, labels, strict=True):
            logits = row @ table[:-1] + table[-1]
            value -= logits[label] - math.log(sum(math.exp(v) for v in logits))
        return value + 0.35 * float((table[:-1] ** 2).sum())

    again = minimize(loss, weights.ravel(), method="L-BFGS-B")
    assert loss(weights.ravel()) <= float(again.fun) + 1e-4
    assert check_grad(loss, lambda flat: np.zeros_like(flat), weights.ravel()) < 0.02  # the gradient vanishes there


def test_a_logistic_probe_knows_what_is_there_in_folds_of_whole_groups() -> None:
    rows = normal(300, 6)
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    assert probe_right(rows, labels, kind="logistic").mean() > 0.93
    assert abs(probe_right(normal(300, 6, seed=5), labels, kind="logistic").mean() - 0.5) < 0.12
    # Twins: every row twice, labels by chance. A probe that saw a row's twin knows its label; by groups it does not.
    twins, chance = np.repeat(normal(40, 60, seed=2), 2, 0), np.repeat(np.random.default_rng(3).integers(0, 2, 40), 2)
    seen = probe_right(twins, chance, penalty=0.01).mean()
    apart = probe_right(twins, chance, penalty=0.01, group=np.arange(80) // 2).mean()
    assert seen > 0.75 and apart < 0.7


def test_a_pair_is_judged_by_the_nearest_centroid() -> None:
    dimension = np.array(["b", "a"] * 20)
    differences = normal(40, 3) * 0.1 + np.where(dimension == "a", 1.0, -1.0)[:, None]
    names, centres = centroids(differences, dimension)
    assert names.tolist() == ["a", "b"]
    np.testing.assert_allclose(centres[0], differences[1::2].mean(0))
    gap = distances(differences, centres)
    assert (names[gap.argmin(1)] == dimension).all()
    assert gap[0, 1] == pytest.approx(float(np.linalg.norm(differences[0] - centres[1])))
