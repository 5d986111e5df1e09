"""Rankings against gold scores: the sum by hand, its ends, how rankings are written, and the data's faults."""

from __future__ import annotations

import itertools
import json

import pytest

from mmalign.core.types import Prompt, Status
from mmalign.rewards import load_reward
from mmalign.rewards.functional import rank_agreement
from tests.rewards.asking import one

GOLD = {"A": 5, "B": 3, "C": 1}


def test_the_sum_by_hand() -> None:
    """Pairs weigh 3 (A, B), 5 (A, C), 3 (B, C): with B before A 8 / 11 is left, with A and C equal 8.5 / 11."""
    assert rank_agreement([2, 3, 1], [5, 3, 1]) == pytest.approx(8 / 11)
    assert rank_agreement([2, 1.5, 2], [5, 3, 1]) == pytest.approx(1 - (2.5 + 3) / 11)
    assert rank_agreement([1, 1], [2, 2]) is None
    assert rank_agreement([3, 2, 1], [5, 3, 1]) == 1 and rank_agreement([1, 2, 3], [5, 3, 1]) == 0


def test_over_all_orders_it_is_one_half_on_average_whatever_the_gold() -> None:
    for gold in ([1.0, 2, 4, 9], [3.0, 3, 1, 0]):
        values = [rank_agreement(order, gold) for order in itertools.permutations(range(4))]
        assert sum(v for v in values if v is not None) / len(values) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("output", "form", "want"),
    [
        ('<think>hm</think> {"A": 4, "B": 2.5, "C": 0}', "scores", 1.0),
        ('first {"x": 1}, so\n```json\n{"C": 5, "B": 3, "A": 1}\n```', "scores", 0.0),
        ("B > A > C", "ranking", 8 / 11),
        ("<answer>A, B, C</answer>", "ranking", 1.0),
        ("A\nC\nB", "ranking", 8 / 11),
    ],
)
def test_rankings_as_judges_write_them(output: str, form: str, want: float) -> None:
    value, status = one("rank_agreement", output, {"gold": GOLD}, form=form)
    assert status is Status.OK and value == pytest.approx(want)
    assert one("rank_agreement", output, {"gold": json.dumps(GOLD)}, form=form)[0] == pytest.approx(want)


def test_statuses_and_faults_of_the_data() -> None:
    for output in ('{"A": 4, "B": 2}', '{"A": 4, "B": 2, "C": 1, "D": 0}', '{"A": "high", "B": 1, "C": 0}', "none", ""):
        assert one("rank_agreement", output, {"gold": GOLD})[1] is Status.PARSE_FAIL
    assert one("rank_agreement", "A > A > B", {"gold": GOLD}, form="ranking")[1] is Status.PARSE_FAIL
    assert one("rank_agreement", '{"A": 1, "B": 2}', {"gold": {"A": 1, "B": 1}})[1] is Status.NOT_APPLICABLE
    reward = load_reward("rank_agreement")
    for gold in ([1, 2], {"A": 1}, {"A": 1, "B": "x"}, "no JSON"):
        with pytest.raises(ValueError, match="gold"):
            reward.check_data(Prompt("q", meta={"gold": gold}))
