"""Combinations: golden values, missing values, state, and what holds for all of them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import ConfigError
from mmalign.core.types import Status
from mmalign.rewards.combine import combinations
from tests.rewards.doubles import scores

OK, NA, PF, ERR, TO = Status
ONE = torch.zeros(4, dtype=torch.long)
REQUIRED: dict[str, dict[str, Any]] = {
    "gate": {"by": "a", "floor": -5.0},
    "group_contrast": {"correct": "a", "behaviour": "b"},
    "lagrangian": {"thresholds": {"a": 0.5}},
    "stratified": {"rule": "a", "model": "b"},
    "confidence": {"rule": "a", "model": "b"},
}


def made(name, **options):
    return combinations.build({"name": name, **(options or REQUIRED.get(name, {}))}, "combine")


def combine(name, parts, weights=None, group=None, **options):
    rows = len(next(iter(parts.values())))
    group = torch.zeros(rows, dtype=torch.long) if group is None else group
    return made(name, **options)(parts, weights or dict.fromkeys(parts, 1.0), group)


def test_the_registry_lists_the_files():
    expected = (
        "confidence ensemble gate group_contrast lagrangian log_sigmoid minimum product rank stratified weighted_sum"
    )
    assert combinations.names() == expected.split()
    with pytest.raises(ConfigError, match=r"Did you mean 'minimum'\?"):
        combinations.build({"name": "minimun"}, "combine")


def test_weighted_sum_raw_and_normalised():
    parts = {"a": scores([0, 0, 1, 1]), "b": scores([0, 0.1, 0.2, 0.3])}
    raw = combine("weighted_sum", parts, {"a": 2.0, "b": -1.0}, scale="raw")
    assert raw.value.tolist() == pytest.approx([0, -0.1, 1.8, 1.7])
    z = combine("weighted_sum", parts)
    assert z.value.tolist() == pytest.approx([-2.0279, -1.2533, 1.2533, 2.0279], abs=1e-4)  # GDPO, sample deviation
    alone = combine("weighted_sum", {"b": parts["b"]}, {"b": 3.0})
    assert alone.value.tolist() == pytest.approx([0, 0.3, 0.6, 0.9])


def test_weighted_sum_running_standardises_by_all_it_has_seen_and_survives_a_restart():
    first, second = torch.randn(50) * 3 + 7, torch.randn(30) * 3 + 7
    group = torch.zeros(1, dtype=torch.long)
    mixed = made("weighted_sum", scale="running")
    mixed({"a": scores(first.tolist())}, {"a": 1.0}, group.expand(50))
    again = made("weighted_sum", scale="running")
    again.load_state_dict(mixed.state_dict())
    both = torch.cat([first, second]).double()
    for sum_ in (mixed, again):
        value = sum_({"a": scores(second.tolist())}, {"a": 1.0}, group.expand(30)).value
        assert torch.allclose(value.double(), (second.double() - both.mean()) / both.std(correction=0), atol=1e-5)
    again.adapting = False
    before = again.state_dict()["a"].clone()
    again({"a": scores([100.0])}, {"a": 1.0}, group)
    assert torch.equal(before, again.state_dict()["a"])


def test_running_statistics_follow_the_rows_of_every_process():
    """Two processes, played in turns: each is given the sums of both."""
    rows, group = [torch.tensor([0.0, 1.0, 5.0]), torch.tensor([9.0])], torch.zeros(4, dtype=torch.long)
    every = torch.cat(rows)
    alone = made("weighted_sum", scale="running")({"a": scores(every.tolist())}, {"a": 1.0}, group).value
    means = [torch.tensor([every.sum(), 4.0]).double() / 2, (every - every.mean()).square().sum().double() / 2]
    values = []
    for mine in rows:
        one, shared = made("weighted_sum", scale="running"), iter(means)
        one.over_ranks = lambda total, shared=shared: next(shared)
        values.append(one({"a": scores(mine.tolist())}, {"a": 1.0}, group[: len(mine)]).value)
    assert torch.allclose(torch.cat(values), alone, atol=1e-6)


def test_missing_parts_propagate_the_worst_status_unless_told_to_renormalise():
    parts = {
        "a": scores([1, None, None, -1, None], [OK, NA, ERR, PF, NA]),
        "b": scores([3, 3, None, 3, None], [OK, OK, TO, OK, NA]),
    }
    weights = {"a": 1.0, "b": 3.0}
    strict = combine("weighted_sum", parts, weights, scale="raw")
    assert strict.status.tolist() == [OK, NA, ERR, PF, NA]
    assert strict.value[[0, 3]].tolist() == [10, 8] and strict.value[[1, 2, 4]].isnan().all()
    lenient = combine("weighted_sum", parts, weights, scale="raw", missing="renormalize")
    assert lenient.status.tolist() == [OK, OK, ERR, PF, NA]
    assert lenient.value[[0, 1, 3]].tolist() == [10, 12, 8] and lenient.value[[2, 4]].isnan().all()


def test_log_sigmoid_is_the_papers_and():
    parts = {"a": scores([0, 2, 1]), "b": scores([0, -2, 3])}
    combined = combine("log_sigmoid", parts)
    assert combined.value[:2].tolist() == pytest.approx([-1.386294, -2.253856], abs=1e-6)
    moved = combine("log_sigmoid", parts, references={"a": 1.0, "b": 3.0})
    assert moved.value[2].item() == pytest.approx(-1.386294, abs=1e-6)


def test_rank_minimum_product():
    parts = {"a": scores([0.1, 0.5, 0.5, 9]), "b": scores([4, 3, 2, 1])}
    assert combine("rank", parts).value.tolist() == pytest.approx([0 + 1, 0.5 + 2 / 3, 0.5 + 1 / 3, 1 + 0])
    assert combine("minimum", parts, scale="raw").value.tolist() == pytest.approx([0.1, 0.5, 0.5, 1])
    assert combine("minimum", parts, {"a": 100.0, "b": 1.0}, scale="raw").value.tolist() == [4, 3, 2, 1]
    combined = combine("product", {"a": scores([0.25, -1.0]), "b": scores([0.5, 0.5])}, {"a": 0.5, "b": 2.0})
    assert combined.value.tolist() == pytest.approx([0.125, 0.0])
    roots = {"a": scores([-0.1, 0.0, 0.25]), "b": scores([0.5, 0.5, 0.5])}
    for part in roots.values():
        part.value.requires_grad_()
    combine("product", roots, {"a": 0.5, "b": 1.0}).value.sum().backward()  # the root of 0 has an endless slope
    assert roots["a"].value.grad.tolist() == pytest.approx([0.0, 0.0, 0.5])
    assert roots["b"].value.grad.tolist() == pytest.approx([0.0, 0.0, 0.5])


def test_gate():
    parts = {
        "a": scores([1, 0, 0, None], [OK, OK, OK, ERR]),
        "b": scores([2, 2, None, 2], [OK, OK, ERR, OK]),
    }
    combined = combine("gate", parts)
    assert combined.value[:3].tolist() == [2, -5, -5] and combined.status.tolist() == [OK, OK, OK, ERR]


def test_stratified_and_confidence():
    parts = {"a": scores([1, 1, 0, 0, 0]), "b": scores([2, 5, 4, 0, -1])}
    assert combine("stratified", parts).value.tolist() == pytest.approx([0.95, 1.05, 0.05, -0.03, -0.05])
    parts["b"].value[3], parts["b"].status[3] = math.nan, ERR
    combined = combine("stratified", parts)
    assert combined.value[[2, 4]].tolist() == pytest.approx([0.05, -0.05]) and combined.value[3].isnan()
    with pytest.raises(ConfigError, match="low \\+ high must be below 1"):
        made("stratified", rule="a", model="b", low=0.6, high=0.5)

    rule = scores([1, 1, None, None, 1], [OK, OK, NA, ERR, OK])
    rule.confidence = torch.tensor([0.7, 1.0, 0.0, 1.0, 0.5])
    model = scores([0.2, None, 0.4, 0.4, None], [OK, ERR, OK, OK, TO])
    combined = combine("confidence", {"a": rule, "b": model})
    assert combined.value[:3].tolist() == pytest.approx([0.76, 1.0, 0.4])
    assert combined.status.tolist() == [OK, OK, OK, ERR, TO]


def test_ensemble():
    parts = {"a": scores([1, 1, None, None]), "b": scores([3, 1, 5, None])}
    for how, expected in {"mean": [2, 1, 5], "min": [1, 1, 5], "mean_minus_std": [1, 1, 5]}.items():
        combined = combine("ensemble", parts, how=how, scale="raw", spread=4.0)
        assert combined.value[:3].tolist() == expected
        assert combined.confidence.tolist() == [0.75, 1, 1, 0]
        assert combined.status.tolist() == [OK, OK, OK, ERR]
    judges = {"a": scores([1, 2, 3]), "b": scores([10, 20, 30]), "c": scores([9, 5, 1])}
    vote = combine("ensemble", judges, how="vote")
    assert vote.value.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])
    assert vote.confidence.tolist() == pytest.approx([1 / 3, 0, 1 / 3])


@pytest.mark.parametrize("kind", ["at_least", "equal"])
def test_lagrangian_multipliers_move_against_the_gap(kind):
    lagrangian = made("lagrangian", thresholds={"a": 0.5}, kind=kind, lr=1.0)
    start = lagrangian.multipliers["a"]
    assert start == pytest.approx(0.5, abs=1e-3)
    above, below = {"a": scores([0.9, 0.9])}, {"a": scores([0.1, 0.1])}
    group = torch.zeros(2, dtype=torch.long)
    lagrangian(above, {"a": 1.0}, group)
    assert lagrangian.multipliers["a"] < start
    for _ in range(3):
        lagrangian(below, {"a": 1.0}, group)
    assert lagrangian.multipliers["a"] > start
    assert float(lagrangian.metrics()["multiplier/a"]) == pytest.approx(lagrangian.multipliers["a"])
    for _ in range(200):
        lagrangian(above, {"a": 1.0}, group)
    assert (lagrangian.multipliers["a"] < 0) == (kind == "equal")


def test_projected_multipliers_are_dual_ascent_by_hand_and_keep_to_their_bounds():
    lagrangian = made("lagrangian", thresholds={"a": 0.5}, multiplier="projected", lr=0.5, momentum=0.0, most=0.3)
    group, seen = torch.zeros(2, dtype=torch.long), []
    for mean in (0.1, 0.9, 0.2, 0.0, 0.4, 1.0, 1.0):
        lagrangian({"a": scores([mean - 0.1, mean + 0.1])}, {"a": 1.0}, group)
        seen.append(lagrangian.multipliers["a"])
    # lambda + (threshold - mean) / 2, cut to [0, 0.3]
    assert seen == pytest.approx([0.2, 0.0, 0.15, 0.3, 0.3, 0.05, 0.0], abs=1e-6)
    quick = made("lagrangian", thresholds={"a": 0.5}, multiplier="projected", lr=1.0, momentum=0.9, most=1.0)
    for _ in range(20):
        quick({"a": scores([-3.0])}, {"a": 1.0}, group[:1])
    assert quick.multipliers["a"] == 1.0
    quick({"a": scores([0.6])}, {"a": 1.0}, group[:1])
    assert quick.multipliers["a"] < 1.0  # no momentum is stored up at the bound
    both = made("lagrangian", thresholds={"a": 0.5}, multiplier="projected", kind="equal", lr=1.0, most=2.0)
    for _ in range(20):
        both({"a": scores([9.0])}, {"a": 1.0}, group[:1])
    assert both.multipliers["a"] == -2.0 and both.bounds({"a": (0.0, 1.0)}, {"a": 1.0}) == (-math.inf, math.inf)
    both.scale = "raw"
    assert both.bounds({"a": (0.0, 1.0)}, {"a": 1.0}) == (-2.0, 2.0)
    with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\), not 1.0"):
        made("lagrangian", thresholds={"a": 0.5}, momentum=1.0)


def test_a_lagrangian_finds_the_constrained_optimum_where_a_fixed_sum_does_not():
    """Main reward -(x - 2)², held reward -x at least -1: the optimum is x = 1 with λ = 2 (dλ: 2(2 - x) = λ)."""
    lagrangian = made(
        "lagrangian", thresholds={"held": -1.0}, multiplier="projected", scale="raw", lr=0.1, momentum=0.0, most=5.0
    )
    x, group = torch.tensor([0.0], requires_grad=True), torch.zeros(1, dtype=torch.long)
    for _ in range(600):
        parts = {"main": scores([0.0]), "held": scores([0.0])}
        parts["main"].value, parts["held"].value = -((x - 2) ** 2), -x
        (gradient,) = torch.autograd.grad(lagrangian(parts, {"main": 1.0, "held": 1.0}, group).value.sum(), x)
        x = (x + 0.05 * gradient).detach().requires_grad_()
    assert x.item() == pytest.approx(1.0, abs=1e-2)
    assert lagrangian.multipliers["held"] == pytest.approx(2.0, abs=2e-2)


def test_lagrangian_multipliers_follow_the_rows_of_every_process():
    """Two processes, played one after the other: each sees the sums of both, so both hold the multiplier of one."""
    rows = [torch.tensor([0.0, 0.1, 0.2]), torch.tensor([0.9])]
    sums = torch.stack([torch.tensor([float(r.sum()), len(r)], dtype=torch.float64) for r in rows])
    alone = made("lagrangian", thresholds={"a": 0.5}, lr=1.0)
    alone({"a": scores(torch.cat(rows).tolist())}, {"a": 1.0}, torch.zeros(4, dtype=torch.long))
    for mine in rows:
        one = made("lagrangian", thresholds={"a": 0.5}, lr=1.0)
        one.over_ranks = lambda total: sums.mean(0)
        one({"a": scores(mine.tolist())}, {"a": 1.0}, torch.zeros(len(mine), dtype=torch.long))
        assert one.multipliers["a"] == pytest.approx(alone.multipliers["a"], abs=1e-9)


def test_lagrangian_values_state_and_missing_rows():
    lagrangian = made("lagrangian", thresholds={"a": 0.0}, scale="raw", lr=1.0)
    parts = {"a": scores([4, None]), "b": scores([1, 1])}
    group = torch.zeros(2, dtype=torch.long)
    combined = lagrangian(parts, {"a": 0.5, "b": 3.0}, group)
    assert combined.value[0] == 3 + 0.5 * 0.5 * 4 and combined.value[1].isnan()
    again = made("lagrangian", thresholds={"a": 0.0}, scale="raw", lr=1.0)
    again.load_state_dict(lagrangian.state_dict())
    for one in (lagrangian, again):
        one(parts, {"a": 0.5, "b": 3.0}, group)
    assert lagrangian.multipliers == again.multipliers
    again.adapting = False
    again(parts, {"a": 0.5, "b": 3.0}, group)
    assert lagrangian.multipliers == again.multipliers
    with pytest.raises(ValueError, match=r"multipliers are of \['z'\]"):
        lagrangian.load_state_dict({"z": torch.zeros(2)})


ALL = combinations.names()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(data=st.data())
def test_what_holds_for_every_combination(name, data):
    """NaN exactly where the status has no value; rows may be permuted; inputs stay; values keep to the bounds."""
    rows = data.draw(st.integers(2, 7))
    number = st.one_of(st.none(), st.floats(0, 1, width=32))
    parts = {n: scores(data.draw(st.lists(number, min_size=rows, max_size=rows))) for n in "abc"}
    weights = {"a": 1.0, "b": 0.5, "c": 2.0}
    group = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    before = {n: part.value.clone() for n, part in parts.items()}
    combined = made(name)(parts, weights, group)
    assert (combined.value.isnan() == ~combined.valid).all()
    assert all(torch.equal(part.value.nan_to_num(9), before[n].nan_to_num(9)) for n, part in parts.items())
    order = torch.randperm(rows)
    shuffled = made(name)({n: part[order] for n, part in parts.items()}, weights, group[order])
    assert torch.allclose(shuffled.value, combined.value[order], atol=1e-5, equal_nan=True)
    assert torch.equal(shuffled.status, combined.status[order])
    low, high = made(name).bounds(dict.fromkeys("abc", (0.0, 1.0)), weights)
    values = combined.value[combined.valid]
    assert (values >= low - 1e-5).all() and (values <= high + 1e-5).all()


@pytest.mark.parametrize("name", ALL)
def test_gradient_passes_where_declared(name):
    made_ = made(name)
    parts = {n: scores([0.2, 0.9, 0.6, 0.7]) for n in "ab"}
    for part in parts.values():
        part.value.requires_grad_()
    combined = made_(parts, {"a": 1.0, "b": 1.0}, ONE)
    assert combined.value.requires_grad == made_.differentiable
    if made_.differentiable:
        (combined.value * torch.tensor([1.0, 2, 3, 4])).sum().backward()
        assert parts["b"].value.grad.isfinite().all() or name == "confidence"


@settings(max_examples=25)
@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_normalised_sums_do_not_see_the_scale_of_a_reward(scale, offset):
    a, b = torch.tensor([0.1, 0.9, 0.3, 0.5]), torch.tensor([1.0, 0.0, 2.0, 5.0])
    one = combine("weighted_sum", {"a": scores(a.tolist()), "b": scores(b.tolist())})
    other = combine("weighted_sum", {"a": scores((a * scale + offset).tolist()), "b": scores(b.tolist())})
    assert torch.allclose(one.value, other.value, atol=1e-2)
