"""Rewards of length and repetition: golden values, closed forms, and who pays in a group."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Status
from mmalign.rewards import functional as F
from mmalign.rewards import load_reward
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR, NONE = Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.NOT_APPLICABLE


def tokens(rollout, *counts):
    """The rollout with a mask of so many tokens a row."""
    rollout.mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    return rollout


# functions ---------------------------------------------------------------------------------------------------------


def test_cosine_golden_values():
    """TRL's tests, Lmax 100: both are held at their end, where others climb back."""
    length = torch.tensor([25.0, 75, 50, 0, 100, 200, 1e9])
    right = F.cosine_length(length, torch.ones(7, dtype=torch.bool), 100)
    incorrect = F.cosine_length(length, torch.zeros(7, dtype=torch.bool), 100)
    assert right.tolist() == pytest.approx([0.92678, 0.57322, 0.75, 1, 0.5, 0.5, 0.5], abs=1e-5)
    assert incorrect.tolist() == pytest.approx([-0.92678, -0.57322, -0.75, -1, -0.5, -0.5, -0.5], abs=1e-5)
    wide = F.cosine_length(torch.tensor([50.0]), torch.tensor([True]), 100, right=(2.0, 0.0))
    assert wide.item() == pytest.approx(1.0)


def test_overlong_golden_values():
    """DAPO's equation 13, TRL's tests, Lmax 100, buffer 20: a floor of -1, which others lack."""
    length = torch.tensor([50.0, 80, 90, 100, 110, 120])
    assert F.soft_overlong(length, 100, 20).tolist() == pytest.approx([0, 0, -0.5, -1, -1, -1])
    assert F.soft_overlong(length, 100, 0).tolist() == [0, 0, 0, 0, -1, -1]


def test_repetition_golden_values():
    """TRL's: token ids."""
    cases = [([5] * 5, 2, -0.75), ([1, 2] * 3, 2, -0.6), ([1, 2, 3] * 2, 2, -0.4 / 2), ([1, 2, 3] * 2, 3, -0.25)]
    for items, n, _ in cases:
        grams = [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
        assert F.repetition_penalty(items, n) == pytest.approx(len(set(grams)) / len(grams) - 1)
    assert F.repetition_penalty([5] * 5, 2) == -0.75 and F.repetition_penalty([1, 2] * 3, 2) == pytest.approx(-0.6)
    assert F.repetition_penalty([1, 2, 3] * 2, 2) == pytest.approx(-0.4)
    assert F.repetition_penalty([1, 2, 3] * 2, 3) == -0.25
    assert F.repetition_penalty([1], 2) == F.repetition_penalty([], 1) == 0


def test_windows():
    length = torch.tensor([0.0, 50, 100, 150, 200, 225, 300])
    assert F.length_window(length, 100).tolist() == [0, 0.5, 1, 1, 1, 1, 1]
    assert F.length_window(length, 100, 200, rise=0, fall=50).tolist() == [0, 0, 1, 1, 1, 0.5, 0]
    assert F.length_window(length, 0, 150).tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_group_length_by_hand():
    """Right answers of 80 and 120 tokens: the measure is 100."""
    length = torch.tensor([80.0, 120, 90, 50, 25, 0, 10, 20])
    right = torch.tensor([True, True, False, False, False, False, False, False])
    group = torch.tensor([3, 3, 3, 3, 3, 3, 9, 9])
    beyond = F.group_length(length, right, group)
    assert beyond.tolist() == pytest.approx([0, 0, 0, 0, -0.5, -1, 0, 0])
    within = F.group_length(length, right, group, penalty=2.0, form="within")
    assert within.tolist() == pytest.approx([0, 0, -0.4, -2, -2, -2, 0, 0])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.integers(0, 2)), min_size=1, max_size=12))
def test_group_length_equals_a_loop_over_rows(rows):
    length, right, group = (torch.tensor(column) for column in zip(*rows, strict=True))
    value = F.group_length(length.double(), right, group, tolerance=0.3)
    for row, (own, correct, number) in enumerate(rows):
        good = [n for n, c, g in rows if c and g == number]
        mean = sum(good) / len(good) if good else 0
        due = 0 if correct or not mean else min(1, max(0, ((mean - own) / mean - 0.3) / 0.7))
        assert value[row].item() == pytest.approx(-due)


# rewards -----------------------------------------------------------------------------------------------------------


def test_length_in_every_unit():
    rows = rollout_of(("one two three", {}), ("一二三四", {}), ("", {}))
    options: dict[str, Any] = {"low": 4}
    assert load_reward("length", **options)(rows).value.tolist() == pytest.approx([0.75, 1, 0])
    assert load_reward("length", unit="characters", low=26)(rows).value.tolist() == pytest.approx([0.5, 4 / 26, 0])
    scores = load_reward("length", unit="tokens", **options)(tokens(rows, 2, 8, 1))
    assert scores.value.tolist() == [0.5, 1, 0.25] and scores.parts["length"].tolist() == [2, 8, 1]
    with pytest.raises(CapabilityError, match="unit: tokens counts the tokens a policy sampled"):
        scored("length", ("a", {}), unit="tokens")


def test_length_of_thinking_as_toolrl_counts_it():
    rows: list[tuple[str, dict[str, Any]]]
    rows = [(f"<think>{'word ' * 128}</think>x", {}), ("no thinking " * 999, {}), ("<think>" * 1_000_000, {})]
    assert scored("length", *rows, low=512, within="think").value.tolist() == [0.25, 0, 0]


def test_overlong_counts_what_was_sampled():
    rows = tokens(rollout_of(("a", {}), ("b", {}), ("c", {})), 80, 90, 100)
    assert load_reward("overlong", limit=100, buffer=20)(rows).value.tolist() == pytest.approx([0, -0.5, -1])


def test_cosine_length_asks_another_reward_what_is_right():
    rows = [("yes " * 25, {"answer": "yes " * 25}), ("no " * 75, {"answer": "yes"}), ("", {"answer": "a"}), ("a", {})]
    scores = scored("cosine_length", *rows, limit=100, unit="words")
    assert scores.value[:3].tolist() == pytest.approx([0.92678, -0.57322, -1], abs=1e-5)
    assert scores.status.tolist() == [OK, OK, OK, NONE] and "no 'answer'" in scores.info[3]
    assert scores.parts["correct"][:3].tolist() == [1, 0, 0] and scores.parts["length"][1] == 75
    reward = load_reward("cosine_length", correct={"name": "iou", "column": "where"}, right=(2.0, 1.0))
    assert reward.range == (-1, 2) and reward.needs == ("where",)
    with pytest.raises(
        ConfigError, match=r"correct\.name: no reward is called 'exakt_match'\. Did you mean 'exact_match'"
    ):
        load_reward("cosine_length", correct={"name": "exakt_match"})


def test_group_length_charges_only_short_wrong_answers_beside_right_ones():
    long, answer = "<think>" + "so " * 100 + "</think>yes", {"answer": "yes"}
    rows = [(long, answer), ("no", answer), ("yes", answer), ("no", answer), ("no", answer), ("no", {})]
    scores = scored("group_length", *rows, group=[0, 0, 1, 2, 2, 0], correct="exact_match")
    measure = 101
    assert scores.value[:5].tolist() == pytest.approx([0, -(((measure - 1) / measure) - 0.5) / 0.5, 0, 0, 0], abs=1e-6)
    assert scores.status.tolist() == [OK] * 5 + [NONE]


def test_repetition_in_every_unit():
    assert one("repetition", "The cat the CAT the cat", n=2) == (pytest.approx(2 / 5 - 1), OK)
    assert one("repetition", "aaaa", n=1, unit="characters", max_penalty=-2.0) == (-1.5, OK)
    assert one("repetition", "[1,2]\n\n[3,4]\n[1,2]", n=1, unit="lines") == (pytest.approx(-1 / 3), OK)
    assert one("repetition", "玩玩玩玩", n=1) == (-0.75, OK)
    assert one("repetition", "too short") == (0, OK)
    assert one("repetition", "") == (-1, FAIL) == one("repetition", "x " * 1_000_000)


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=50))
def test_any_text_has_a_length_and_a_repetition(text):
    for name in ("length", "repetition"):
        scores = load_reward(name)(rollout_of((text, {})))
        assert scores.status.item() in (OK, FAIL) and math.isfinite(scores.value.item())


@pytest.mark.parametrize(
    "name, options, why",
    [
        ("length", {"low": 5, "high": 3}, "0 <= low <= high"),
        ("overlong", {"limit": 5, "buffer": 6}, r"buffer lies in \[0, limit\]"),
        ("repetition", {"max_penalty": 1.0}, "max_penalty < 0"),
        ("group_length", {"tolerance": 1.0}, "0 < tolerance < 1"),
        ("cosine_length", {"limit": 0}, "limit: must be at least 1"),
    ],
)
def test_options_are_checked(name, options, why):
    with pytest.raises(ConfigError, match=why):
        load_reward(name, **options)
