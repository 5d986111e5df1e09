"""Alarms: each is raised where it should be, and not where nothing but noise moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.types import Audio, Prompt
from mmalign.evaluation.alarms import MEMORY, STREAK, StepAlarms, compare_evaluations
from mmalign.evaluation.records import Evaluation, RowScores, SetValue

ROWS = 40


def evaluation(modality: str = "text", outputs: Any = None, vendi: float = 10.0, **values: np.ndarray) -> Evaluation:
    """Measures by name, one value a row, and what was made."""
    status = np.zeros(ROWS, np.int8)
    scores = {name: RowScores(value.astype(np.float32), status) for name, value in values.items()}
    noise = np.random.default_rng(1).normal(size=50)
    sets = {"vendi": SetValue(vendi, (vendi + 0.1 * noise).astype(np.float32), ROWS)}
    made = [f"text number {i}" for i in range(ROWS)] if outputs is None else outputs
    prompts = [Prompt(f"p{i}") for i in range(ROWS)]
    return Evaluation(modality, prompts, np.arange(ROWS), scores, sets, made, 0, 64, 1)  # type: ignore[arg-type]


def kinds(earlier: Evaluation, now: Evaluation) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.about) for alarm in compare_evaluations(earlier, now, ["proxy"], ["truth"], 0)]


@pytest.mark.parametrize(("proxy", "truth", "alarm"), [(1, -1, True), (1, 1, False), (-1, -1, False), (1, 0, False)])
def test_only_a_judge_that_falls_while_the_reward_rises_is_a_turn(proxy: int, truth: int, alarm: bool) -> None:
    rng = np.random.default_rng(0)
    before, noise = rng.normal(size=(2, ROWS)), 0.3 * rng.normal(size=(2, ROWS))
    start = evaluation(proxy=before[0], truth=before[1])
    now = evaluation(proxy=before[0] + 0.5 * proxy + noise[0], truth=before[1] + 0.5 * truth + noise[1] * (truth != 0))
    assert kinds(start, now) == ([("turned", "truth")] if alarm else [])


def test_noise_alone_is_seldom_a_turn() -> None:
    raised = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        before = rng.normal(size=(2, ROWS))
        after = before + rng.normal(size=(2, ROWS))
        start, now = evaluation(proxy=before[0], truth=before[1]), evaluation(proxy=after[0], truth=after[1])
        raised += len(kinds(start, now))
    assert raised <= 2  # 0.025² of 60 is 0.04


def test_the_sentence_says_where_to_go_back_to() -> None:
    zero = np.zeros(ROWS) + np.random.default_rng(0).normal(size=ROWS)
    alarms = compare_evaluations(evaluation(p=zero, j=zero), evaluation(p=zero + 1, j=zero - 1), ["p"], ["j"], 40)
    assert "while p, which is trained on, rose" in alarms[0].text and "the checkpoint of step 40" in alarms[0].text


def test_texts_that_grow_or_become_one() -> None:
    start = evaluation(outputs=[f"text {i} of {'many ' * (i % 3)}words" for i in range(ROWS)])
    longer = evaluation(outputs=[f"text {i} of {'many ' * (9 + i % 3)}words" for i in range(ROWS)])
    assert kinds(start, longer) == [("drift", "words")]
    assert kinds(start, evaluation(outputs=["text 1 of many words"] * ROWS)) == [("diversity", "texts")]
    assert kinds(start, start) == []


def test_pictures_that_saturate_and_sounds_that_get_loud() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(90, 160, (12, 1, 4, 4)), 3, 1).astype(np.uint8)
    red = grey.copy()
    red[:, 1:] //= 4
    assert ("drift", "saturation") in kinds(evaluation("image", grey), evaluation("image", red))
    assert kinds(evaluation("image", grey), evaluation("image", grey + 3)) == []
    quiet = torch.from_numpy(rng.normal(size=(12, 1, 800)).astype(np.float32)) * 0.05
    loud = kinds(evaluation("audio", Audio(quiet, 8_000)), evaluation("audio", Audio(4 * quiet, 8_000)))
    assert loud == [("drift", "loudness")]
    assert kinds(evaluation("audio", Audio(quiet, 8_000)), evaluation("audio", Audio(1.2 * quiet, 8_000))) == []


def test_diversity_of_a_set_falls() -> None:
    assert kinds(evaluation(vendi=10.0), evaluation(vendi=8.0)) == [("diversity", "vendi")]
    assert kinds(evaluation(vendi=10.0), evaluation(vendi=9.5)) == []


def test_a_jump_of_the_kl_is_raised_once() -> None:
    watch = StepAlarms()
    usual = [watch.see({"kl/reference": 0.01 + 0.001 * (i % 3)}) for i in range(MEMORY)]
    assert not any(usual)
    assert [alarm.kind for alarm in watch.see({"kl/reference": 0.5})] == ["kl"]
    assert watch.see({"kl/reference": 0.5}) == []


def test_a_kl_that_grows_from_nothing_is_no_jump() -> None:
    watch = StepAlarms()
    assert not any(watch.see({"kl/old": 1e-7 * 1.3**i}) for i in range(40))


def test_dead_groups_in_a_row() -> None:
    watch = StepAlarms()
    dead, live = {"reward/a/flat_groups": 1.0, "reward/b/flat_groups": 0.95}, {"reward/a/flat_groups": 0.2}
    assert not any(watch.see(dead) for _ in range(STREAK - 1)) and not watch.see(live)
    raised = [watch.see(dead) for _ in range(2 * STREAK)]
    assert [len(alarms) for alarms in raised] == [int(i == STREAK - 1) for i in range(2 * STREAK)]
