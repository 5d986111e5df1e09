"""Criteria in words: their arithmetic by hand, their data, and the whole reward on judges of real classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmalign
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded
from mmalign.rewards.functional import criteria_scores
from mmalign.rewards.judges._criteria import Criterion, read_criteria
from mmalign.rewards.models.asking import Answers
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.doubles import Answering

NAN = float("nan")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_vlm(tmp_path_factory.mktemp("judge") / "llava", "llava", chat=True))


def made(checkpoint: str, **options: Any) -> Any:
    words = {"yes": "good", "no": "bad", "least_mass": 0.0}
    return mmalign.load_reward("criteria", checkpoint=checkpoint, **{"judge": words, **options})


def answering(reward: Any, chances: dict[str, float | None], too_long: bool = False) -> list[Prompt]:
    """Let the judge answer by the key that stands in a question; None: it has no answer. Gives what it was asked."""
    asked: list[Prompt] = []

    def judge(questions: list[Prompt]) -> Answers:
        asked.extend(questions)
        values = [next(p for key, p in chances.items() if key in question.text) for question in questions]
        margins = [NAN if p is None else math.log(p / (1 - p)) for p in values]
        silent = [p is None for p in values]
        whys = ["the judge is silent" if none else "" for none in silent]
        return Answers(torch.tensor(margins), torch.ones(len(values)), whys, [none and too_long for none in silent])

    reward.ask = Answering(judge)
    return asked


def shown(*criteria: Any) -> Rollout:
    images = torch.rand(len(criteria), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = [Prompt(f"p{i}", meta={} if c is None else {"criteria": c}) for i, c in enumerate(criteria)]
    return Rollout(prompts, images, torch.arange(len(criteria)))


# the arithmetic ----------------------------------------------------------------------------------------------------


def test_readings_by_hand() -> None:
    """Soft .8 (weight 3) and .2 (1), hard .9; then the same with a hard .4; then hard ones alone."""
    value = torch.tensor([0.8, 0.2, 0.9, 0.8, 0.2, 0.4, 0.9, 0.6], dtype=torch.float64)
    row = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    hard = torch.tensor([False, False, True, False, False, True, True, True])
    weight = torch.tensor([3.0, 1, 2, 3, 1, 2, 1, 1], dtype=torch.float64)
    readings = criteria_scores(value, row, hard, weight, 4)
    soft = (3 * 0.8 + 0.2) / 4
    assert readings["gated"][:3].tolist() == pytest.approx([soft, 0.0, 1.0], abs=1e-12)
    assert readings["smooth"][:3].tolist() == pytest.approx([0.9 * soft, 0.4 * soft, 0.54], abs=1e-12)
    assert readings["flat"][:2].tolist() == pytest.approx([(4 * soft + 1.8) / 6, (4 * soft + 0.8) / 6], abs=1e-12)
    assert readings["share"][:3].tolist() == pytest.approx([5 / 6, 3 / 6, 1.0], abs=1e-12)
    assert all(reading[3].isnan() for reading in readings.values())


def test_missing_answers_are_never_a_no() -> None:
    value = torch.tensor([NAN, 0.6, NAN, 0.7, NAN, 0.3, NAN])
    row = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    hard = torch.tensor([False, False, True, False, True, True, False])
    readings = criteria_scores(value, row, hard, torch.ones(7), 4)
    assert readings["gated"][0].item() == pytest.approx(0.6), "a soft one is left out"
    assert readings["gated"][1].isnan() and readings["smooth"][1].isnan(), "nobody knows whether the gate is open"
    assert readings["gated"][2] == 0, "another hard one has failed, whatever this one is"
    assert all(reading[3].isnan() for reading in readings.values())


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0.1, 5)), min_size=1, max_size=8))
def test_readings_are_those_of_plain_sums(criteria: list[tuple[float, bool, float]]) -> None:
    columns = [torch.tensor(list(column)) for column in zip(*criteria, strict=True)]
    value, hard, weight = columns[0].double(), columns[1], columns[2].double()
    readings = criteria_scores(value, torch.zeros(len(criteria), dtype=torch.long), hard, weight, 1)
    soft = [(p, w) for p, h, w in criteria if not h]
    mean = sum(p * w for p, w in soft) / sum(w for _, w in soft) if soft else 1.0
    gate = all(p >= 0.5 for p, h, _ in criteria if h)
    assert readings["gated"].item() == pytest.approx(mean if gate else 0.0, abs=1e-6)
    assert readings["smooth"].item() == pytest.approx(mean * math.prod(p for p, h, _ in criteria if h), abs=1e-6)
    total = sum(w for *_, w in criteria)
    assert readings["flat"].item() == pytest.approx(sum(p * w for p, _, w in criteria) / total, abs=1e-6)


# the reward --------------------------------------------------------------------------------------------------------

RUBRIC = [
    {"text": "exactly three cats", "kind": "hard", "name": "cats"},
    {"text": "warm light", "weight": 3},
    {"text": "a watermark", "positive": False},
]
CHANCES = {"cats": 0.9, "light": 0.8, "watermark": 0.4}


@pytest.mark.parametrize(("reading", "want"), [("gated", 0.75), ("smooth", 0.675), ("flat", 0.78), ("share", 1.0)])
def test_the_value_is_the_reading_asked_for(checkpoint: str, reading: str, want: float) -> None:
    reward = made(checkpoint, reading=reading)
    answering(reward, CHANCES)
    scores = reward(shown(RUBRIC))
    assert scores.value.item() == pytest.approx(want, abs=1e-5)
    assert scores.parts["of_cats"].item() == pytest.approx(0.9) and scores.parts["hard"].item() == pytest.approx(0.9)
    assert scores.parts["soft"].item() == pytest.approx(0.75) and scores.parts["unanswered"] == 0
    assert scores.confidence.item() == pytest.approx((0.8 + 0.6 + 0.2) / 3, abs=1e-5)


def test_criteria_of_the_run_and_of_rows_and_key_points_are_asked_together(checkpoint: str) -> None:
    reward = made(checkpoint, criteria=["warm light"], points={"name": "scenes"})
    asked = answering(reward, {"light": 0.8, "cats": 0.9, "Is there": 0.6})
    prompts = [Prompt("a red circle", meta={"criteria": RUBRIC[0]}), Prompt("an oil painting")]
    scores = reward(Rollout(prompts, torch.rand(2, 3, 16, 16), torch.arange(2)))
    assert [question.text.splitlines()[-3] for question in asked if "Criterion" in question.text] == [
        "Criterion: warm light",
        "Criterion: exactly three cats",
        "Criterion: warm light",
    ]
    points = [question.text for question in asked if "Criterion" not in question.text]
    assert points[0] == "Is there exactly one red circle? Answer yes or no."
    assert scores.parts["soft"][0].item() == pytest.approx((0.8 + 0.6 * len(points)) / (1 + len(points)), abs=1e-5)
    assert scores.status.tolist() == [Status.OK, Status.OK] and scores.value[1].item() == pytest.approx(0.8)
    assert reward.needs == ()


def test_statuses(checkpoint: str) -> None:
    reward = Guarded("criteria", made(checkpoint), failed_share=1.0)
    answering(reward.reward, {"light": 0.8, "cats": None})
    scores = reward(shown(["warm light"], [RUBRIC[0], "warm light"], [], None, ["warm light", "cats"], [{"text": 3}]))
    assert scores.status.tolist() == [
        Status.OK,
        Status.ERROR,
        Status.NOT_APPLICABLE,
        Status.NOT_APPLICABLE,
        Status.OK,
        Status.ERROR,
    ]
    assert "the judge is silent" in scores.info[1] and "needs a text" in scores.info[5]
    assert scores.value[4].item() == pytest.approx(0.8) and scores.parts["unanswered"][4] == 0.5


def test_texts_are_judged_by_reading_them(checkpoint: str) -> None:
    reward = made(checkpoint, criteria=["Is it {prompt} brief?"])
    asked = answering(reward, {"brief": 0.5})
    scores = reward(Rollout([Prompt("q"), Prompt(""), Prompt("q")], ["a {prompt} b", "c", " "], torch.arange(3)))
    assert asked[0].text == "Request:\nq\n\nText:\na {prompt} b\n\nIs it {prompt} brief? Answer yes or no."
    assert asked[1].text == "Text:\nc\n\nIs it {prompt} brief? Answer yes or no."
    assert scores.status.tolist() == [Status.OK, Status.OK, Status.PARSE_FAIL] and scores.value[2] == 0
    answering(reward, {"brief": None}, too_long=True)
    assert reward(Rollout([Prompt("q")], ["a"], torch.arange(1))).status.tolist() == [Status.PARSE_FAIL]
    with pytest.raises(CapabilityError, match=r"frame: shows the judge none of the text it is about"):
        made(checkpoint, frame="{criterion}?", criteria=["x"])(Rollout([Prompt("q")], ["a"], torch.arange(1)))


def test_a_column_gives_the_context_by_which_is_judged(checkpoint: str) -> None:
    reward = made(checkpoint, criteria=["It is right."], frame="{principle} Then: {criterion}")
    asked = answering(reward, {"colours count": 0.9, "counts count": 0.2})
    prompts = [Prompt("x", meta={"principle": text}) for text in ("colours count", "counts count")]
    scores = reward(Rollout(prompts, torch.rand(2, 3, 16, 16), torch.arange(2)))
    assert scores.value.tolist() == pytest.approx([0.9, 0.2]) and reward.needs == ("principle",)
    assert asked[0].text == "colours count Then: It is right."


def test_a_real_judge_answers_each_criterion_by_itself(checkpoint: str) -> None:
    reward = made(checkpoint, frame="say {criterion}", reading="smooth")
    rows = [
        [{"text": "a", "kind": "hard"}, {"text": "b", "weight": 2}, "red"],
        ["cube", {"text": "b", "positive": False}],
    ]
    rollout = shown(*rows)
    scores = reward(rollout)

    def chance(word: str, row: int) -> float:
        return float(reward.ask([Prompt(f"say {word}", {"image": rollout.output[row]})]).margin.sigmoid())

    want = [
        chance("a", 0) * (2 * chance("b", 0) + chance("red", 0)) / 3,
        (chance("cube", 1) + 1 - chance("b", 1)) / 2,
    ]
    assert scores.value.tolist() == pytest.approx(want, abs=1e-5)


# the data ----------------------------------------------------------------------------------------------------------


def test_every_fault_of_the_data_names_its_place() -> None:
    faults = {
        r"k\[0\]: a criterion is a text or an object with a text, found int": 3,
        r"k\[0\]: unknown field 'wieght'. Did you mean 'weight'\?": {"text": "a", "wieght": 1},
        r"k\[0\]: needs a text that says what is asked": {"kind": "hard"},
        r"k\[1\]: kind is soft or hard, found 'firm'": ["a", {"text": "a", "kind": "firm"}],
        r"k\[0\]: weight is a positive number, found 0": {"text": "a", "weight": 0},
        r"k\[0\]: positive is true or false, found 'no'": {"text": "a", "positive": "no"},
        r"k\[0\]: name is a text without '/'": {"text": "a", "name": "a/b"},
    }
    for sentence, value in faults.items():
        with pytest.raises(ValueError, match=sentence):
            read_criteria(value, "k")
    assert read_criteria({"text": " a ", "weight": None}, "k") == [Criterion("a")]


def test_a_csv_file_holds_them_as_json(checkpoint: str) -> None:
    reward = made(checkpoint)
    answering(reward, CHANCES)
    scores = reward(shown('[{"text": "warm light", "weight": 3}, "a watermark"]', "warm light"))
    assert scores.value.tolist() == pytest.approx([(2.4 + 0.4) / 4, 0.8])
    with pytest.raises(ValueError, match="begins as JSON and is none"):
        reward.check_data(Prompt("x", meta={"criteria": "[warm"}))


def test_every_fault_of_the_options_is_told(checkpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"criteria\[0\]: kind is soft or hard, found 'firm'"):
        made(checkpoint, criteria=[{"text": "a", "kind": "firm"}])
    with pytest.raises(ConfigError, match=r"two are named 'cats'"):
        made(checkpoint, criteria=[RUBRIC[0], RUBRIC[0]])
    with pytest.raises(ConfigError, match=r"frame: 'yes\?' asks the same of every row; name \{criterion\}"):
        made(checkpoint, frame="yes?")
