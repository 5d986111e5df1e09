"""What the page of a run shows, without gradio; and with it where it is installed."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.demo.asking import Side, answer, asked, known
from mmalign.demo.scores import table
from mmalign.demo.shown import answered, drawn, pictures, sounds, written
from mmalign.evaluation.report.boxes import drawing
from mmalign.media.image import to_pil
from mmalign.run.load import Trained

ASKED = "a picture of 3 things"
CHOICE = [Prompt("a cat", meta={"answer": "3"}), Prompt("where?", {"image": torch.zeros(3, 4, 4)}, {"boxes": [1]})]


def test_both_sides_come_from_the_same_noise_and_are_scored_as_the_run_was(run: Trained) -> None:
    before, after = answer(run, Prompt(ASKED), 2, 7)
    assert torch.equal(after.rollout.output, run.generate([ASKED] * 2, 7).output)
    with run.start():
        assert torch.equal(before.rollout.output, run.generate([ASKED] * 2, 7).output)
    assert not torch.equal(before.rollout.output, after.rollout.output)
    assert list(after.verdicts) == ["crisp", "small"]
    assert torch.equal(after.verdicts["crisp"].value, run.score(after.rollout)["crisp"].value)  # type: ignore[union-attr]
    with pytest.raises(DataError, match="9 outputs: ask for 1 to 8"):
        answer(run, Prompt(ASKED), 9, 7)


def test_prompts_to_choose_from_are_held_out_ones(run: Trained, caplog: pytest.LogCaptureFixture) -> None:
    assert known(run) == run.parts.source.held_out_items() and len(known(run, 1)) == 1

    def gone() -> Any:
        raise DataError("prompts.txt: no such file.")

    source = SimpleNamespace(held_out_items=gone)
    parts = SimpleNamespace(file=run.parts.file, source=source, policy=run.parts.policy)
    assert known(Trained(parts, 4, {})) == [] and "prompts.txt: no such file" in caplog.text  # type: ignore[arg-type]


def test_a_known_prompt_keeps_its_facts_until_it_is_changed() -> None:
    assert asked(CHOICE, " a cat ") is CHOICE[0] and asked(CHOICE, "a dog") == Prompt("a dog")
    assert asked(CHOICE, "where?", 1) is CHOICE[1] and asked(CHOICE, "where?") == Prompt("where?")
    changed = asked(CHOICE, "what?", 1)
    assert changed.media is CHOICE[1].media and not changed.meta
    own = asked(CHOICE, "where?", None, to_pil(torch.ones(3, 5, 6)))
    assert own.media["image"].shape == (3, 5, 6) and not own.meta
    with pytest.raises(DataError, match="choose one of those below, or bring a picture"):
        asked(CHOICE[1:], "where?")
    with pytest.raises(DataError, match="the prompt is empty; write one"):
        asked(CHOICE, " \n", 1)


def _side(count: int, **verdicts: Scores | str) -> Side:
    return Side(Rollout.of(["a"] * count, torch.zeros(count, 3, 4, 4)), verdicts)


def test_where_there_is_no_number_the_table_says_why() -> None:
    nan = math.nan
    status = torch.tensor([Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.TIMEOUT])
    mixed = Scores(torch.tensor([1.0, 0.0, nan, nan]), status)
    lost = Scores(torch.full((4,), nan), torch.full((4,), int(Status.NOT_APPLICABLE)), info=["row 0 lacks boxes"] * 4)
    whole = Scores.of(torch.tensor([0.1, 0.2, 0.3, 0.4]), parts={"set": torch.full((4,), -2.0)})
    one = _side(4, mixed=mixed, lost=lost, fad=whole, apart="it reads other pictures.")
    two = _side(4, mixed=Scores.of(torch.full((4,), 0.5)), lost=lost, fad=whole, apart="it reads other pictures.")
    headers, rows = table(one, two, {"mixed": "trained"})
    assert headers == ["reward", "role", "start (mean)", "learned (mean)", *(f"output {i}" for i in (1, 2, 3, 4))]
    assert rows[0][:5] == ["mixed", "trained", "0.500", "0.500", "1.000 → 0.500"]
    assert rows[0][5:] == ["0.000 (unreadable) → 0.500", "failed → 0.500", "took too long → 0.500"]
    assert rows[1][1:5] == ["judge", *["does not apply: row 0 lacks boxes"] * 2, "does not apply → does not apply"]
    assert rows[2][2:5] == ["−2.000", "−2.000", "0.100 → 0.100"]  # of a set its value, not the mean of shares
    assert rows[3][2:5] == ["it reads other pictures.", "it reads other pictures.", "– → –"]


def test_one_output_needs_no_columns_of_its_own() -> None:
    alone = Scores(torch.tensor([math.nan]), torch.tensor([Status.NOT_APPLICABLE]), parts={"set": torch.zeros(1)})
    failed = Scores(torch.tensor([0.0]), torch.tensor([Status.PARSE_FAIL]))
    headers, rows = table(*[_side(1, fad=alone, format=failed)] * 2, {})
    assert headers == ["reward", "role", "start", "learned"]
    assert rows[0][2] == "does not apply: a set has at least 3 outputs" and rows[1][2] == "0.000 (unreadable)"


def test_a_reward_that_cannot_judge_leaves_the_others_standing(run: Trained) -> None:
    def stubborn(rollout: Rollout) -> Scores:
        raise CapabilityError("it reads other pictures.")

    both = answer(Trained(run.parts, run.step, {**run.rewards, "other": stubborn}), Prompt(ASKED), 1, 0)
    assert both[1].verdicts["other"] == "it reads other pictures." and isinstance(both[1].verdicts["small"], Scores)


def test_outputs_as_people_see_and_hear_them() -> None:
    assert pictures(torch.rand(1, 3, 16, 16))[0].size == (384, 384)
    quiet = torch.full((2, 2, 400), 0.25)
    mask = torch.arange(400).expand(2, 400) < torch.tensor([[100], [0]])
    first, second = sounds(Audio(quiet, 4000, mask))
    assert first is not None and second is None
    (rate, samples), picture = first
    assert rate == 4000 and samples.dtype == "int16" and samples.shape == (100, 2) and picture.size == (640, 96)
    assert samples.max() == 8192  # as loud as it is
    assert drawn(Prompt("what?", {"audio": Audio(quiet[:1], 4000)})).size == (640, 96)  # type: ignore[union-attr]
    assert "a &lt;b&gt;\nc" in written(["a <b>\nc"]) and "(nothing)" in written([""])
    assert "<b>2</b>  b" in written(["a", "b"])


def test_boxes_are_drawn_into_a_picture_for_each_answer() -> None:
    draw = drawing({"rewards": {"iou": {"name": "iou"}}})
    assert draw is not None
    prompt = Prompt("where?", {"image": torch.zeros(3, 64, 64)}, {"boxes": [[8, 8, 24, 24]], "size": [64, 64]})
    one, two = answered(["[30, 30, 50, 50]", "nowhere"], prompt, draw)
    assert one.getpixel((180, 180)) == (232, 89, 12)
    assert two.getpixel((180, 180)) == (0, 0, 0) and two.getpixel((48, 48)) == (11, 122, 75)
    assert answered(["[30, 30, 50, 50]"], Prompt("where?"), draw) == []


def test_without_gradio_the_command_says_what_to_install(
    finished: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = call("demo", finished)
    assert code == 2 and "mmalign demo needs the 'demo' extra: pip install 'mmalign[demo]'" in err


def test_the_page_answers_and_says_what_cannot_be_asked(run: Trained) -> None:
    gradio = pytest.importorskip("gradio")
    from mmalign.demo.page import page, theme

    built = page(run, "tiny")
    theme()
    ask = next(fn for fn in built.fns.values() if fn.api_name == "ask")
    assert ask.concurrency_limit == 1
    before, after, scores = ask.fn(ASKED, None, None, 2, 7)
    assert [caption for _, caption in before] == ["1", "2"] and before[0][0].tobytes() != after[0][0].tobytes()
    assert scores.value["headers"][:4] == ["reward", "role", "start (mean)", "learned (mean)"]
    assert [row[:2] for row in scores.value["data"]] == [["crisp", "trained"], ["small", "judge"]]
    with pytest.raises(gradio.Error, match="the prompt is empty"):
        ask.fn("", None, None, 2, 7)
