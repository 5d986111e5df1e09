"""MetaRM: its difference term in a loop, both steps in float64 by hand, any cut of the rows, and what it is for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmalign.core.errors import DataError
from mmalign.core.types import Preference
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.meta_rm import MetaRM, difference
from mmalign.policies.scorer import Scorer
from tests.objectives.driving import collect, gradient
from tests.objectives.scorers import Valued, rows

OUTPUTS = [["aa", "b", "ab"], None, ["a", "bbbb"], ["", "aab", "bb"]]


def drawn() -> list[Preference]:
    return rows(*({"outputs": texts} if texts else {} for texts in OUTPUTS))


def moving() -> Any:
    """A scorer with its weight at (0.5, 0.5)."""
    return Scorer(Valued())


def counts(text: str) -> list[float]:
    return [float(text.count("a")), float(text.count("b")) + 0.1 * len(text)]


def test_the_difference_is_the_papers_sum() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.3], dtype=torch.float64)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    total = sum(1 / (1 + math.exp(-abs(float(scores[i] - scores[j])))) for i, j in pairs)
    assert float(difference(scores)) == pytest.approx(2 / 16 * total)


def shifted_by_hand(weight: list[float], eta: float) -> list[float]:
    """θ + η ∇J in plain loops: σ'(|d|) sign(d) times the difference of the counts."""
    moved, given = [0.0, 0.0], [texts for texts in OUTPUTS if texts]
    for texts in given:
        x = [counts(text) for text in texts]
        r = [sum(w * c for w, c in zip(weight, row, strict=True)) for row in x]
        for i in range(len(x)):
            for j in range(i + 1, len(x)):
                d = r[i] - r[j]
                s = 1 / (1 + math.exp(-abs(d)))
                slope = 2 / len(x) ** 2 * s * (1 - s) * ((d > 0) - (d < 0))
                moved = [m + slope * (a - b) for m, a, b in zip(moved, x[i], x[j], strict=True)]
    return [w + eta * m / len(given) for w, m in zip(weight, moved, strict=True)]


def test_the_gradient_is_bradley_terrys_at_the_shifted_weights() -> None:
    eta, policy = 0.7, moving()
    objective = MetaRM(step_size=eta)
    found = gradient(policy, objective, collect(policy, objective, drawn()))
    assert policy.adapter.module.weight.tolist() == [[0.5, 0.5]] and policy.adapter.module.weight.is_leaf
    there = moving()
    with torch.no_grad():
        there.adapter.module.weight.copy_(torch.tensor([shifted_by_hand([0.5, 0.5], eta)], dtype=torch.float64))
    plain = BradleyTerry()
    torch.testing.assert_close(found, gradient(there, plain, collect(there, plain, drawn())))
    at_start = gradient(policy, plain, collect(policy, plain, drawn()))
    assert (found - at_start).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 3])
def test_any_cut_of_rows_and_of_outputs_has_the_same_gradient(size: int) -> None:
    policy, whole = moving(), MetaRM(step_size=0.7)
    expected = gradient(policy, whole, collect(policy, whole, drawn()))
    cut = MetaRM(step_size=0.7, score_rows=size)
    torch.testing.assert_close(gradient(policy, cut, collect(policy, cut, drawn()), rows=size), expected)


def test_without_outputs_it_is_bradley_terry_and_two_processes_share_one_step() -> None:
    policy, bare = moving(), rows({}, {}, {})
    meta, plain = MetaRM(), BradleyTerry()
    expected = gradient(policy, plain, collect(policy, plain, bare))
    torch.testing.assert_close(gradient(policy, meta, collect(policy, meta, bare)), expected)
    alone = MetaRM(step_size=0.7)
    collect(policy, alone, drawn())
    half = MetaRM(step_size=0.7)
    half.over_ranks = lambda own: own / 2  # of two processes the other has no outputs
    collect(policy, half, drawn())
    torch.testing.assert_close(half._shift, alone._shift)


def test_training_ends_where_the_shifted_weights_are_bradley_terrys_best() -> None:
    """The first-order form has this fixed point, and not the minimum of Bradley-Terry's loss itself."""
    policy = moving()
    pairs = [Preference(replace(row.prompt, meta={"outputs": ["b", "bbbb", "a"]}), "aa", "a") for row in rows({}, {})]
    objective, plain = MetaRM(centre=0.3, step_size=0.5), BradleyTerry(centre=0.3)
    optimizer = torch.optim.SGD(policy.adapter.module.parameters(), lr=0.2)
    for _ in range(400):
        optimizer.zero_grad()
        gradient(policy, objective, collect(policy, objective, pairs))
        optimizer.step()
    assert gradient(policy, objective, collect(policy, objective, pairs)).abs().max() < 1e-4
    assert gradient(policy, plain, collect(policy, plain, pairs)).abs().max() > 1e-2


def test_outputs_that_are_none_are_told() -> None:
    for value in ("aa", ["one"], [1, 2]):
        with pytest.raises(DataError, match=r"'outputs' is .*; expected a list of two texts at least"):
            MetaRM().check_data(rows({"outputs": value})[0].prompt)
    MetaRM().check_data(rows({"outputs": ["a", "b"]})[0].prompt)
