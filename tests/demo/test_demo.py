"""What the page of a run shows, without gradio; and with it where it is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.demo.answers import Side, chosen_prompt, generate_both, known
from mmalign.demo.display import answered, drawn, pictures, sounds, texts_as_html
from mmalign.demo.scores import table
from mmalign.evaluation.report.boxes import drawing
from mmalign.media.image import to_pil
from mmalign.run.load import Trained
from tests.typecheck import unchecked

ASKED = "a picture of 3 things"
CHOICE = [Prompt("a cat", meta={"answer": "3"}), Prompt("where?", {"image": torch.zeros(3, 4, 4)}, {"boxes": [1]})]


def test_both_sides_come_from_the_same_noise_and_are_scored_as_the_run_was(run: Trained) -> None:
    before, after = generate_both(run, Prompt(ASKED), 2, 7)
    assert torch.equal(after.rollout.output, run.generate([ASKED] * 2, 7).output)
    with run.start():
        assert torch.equal(before.rollout.output, run.generate([ASKED] * 2, 7).output)
    assert not torch.equal(before.rollout.output, after.rollout.output)
    assert list(after.verdicts) == ["crisp", "small"]
    assert torch.equal(after.verdicts["crisp"].value, run.score(after.rollout)["crisp"].value)  # type: ignore[union-attr]
    with pytest.raises(DataError, match="9 outputs: ask for 1 to 8"):
        generate_both(run, Prompt(ASKED), 9, 7)


def test_prompts_to_choose_from_are_held_out_ones(run: Trained, caplog: pytest.LogCaptureFixture) -> None:
    assert known(run) == list(run.parts.source.held_out_items()) and len(known(run, 1)) == 1

    def gone() -> Any:
        raise DataError("prompts.txt: no such file.")

    source: Any = SimpleNamespace(training_items=gone, held_out_items=gone)
    parts = dataclasses.replace(run.parts, source=source)
    assert known(Trained(parts, 4, {})) == [] and "prompts.txt: no such file" in caplog.text


def test_a_known_prompt_keeps_its_facts_until_it_is_changed() -> None:
    assert chosen_prompt(CHOICE, " a cat ") is CHOICE[0] and chosen_prompt(CHOICE, "a dog") == Prompt("a dog")
    assert chosen_prompt(CHOICE, "where?", 1) is CHOICE[1] and chosen_prompt(CHOICE, "where?") == Prompt("where?")
    changed = chosen_prompt(CHOICE, "what?", 1)
    assert changed.media is CHOICE[1].media and not changed.meta
    own = chosen_prompt(CHOICE, "where?", None, to_pil(torch.ones(3, 5, 6)))
    assert own.media["image"].shape == (3, 5, 6) and not own.meta
    with pytest.raises(DataError, match="choose one of those below, or bring a picture"):
        chosen_prompt(CHOICE[1:], "where?")
    with pytest.raises(DataError, match="the prompt is empty; write one"):
        chosen_prompt(CHOICE, " \n", 1)


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
    headers, rows, reasons = table(one, two, {"mixed": "trained"})
    assert headers == ["reward", "role", "start (mean)", "learned (mean)", *(f"output {i}" for i in (1, 2, 3, 4))]
    assert rows[0][:5] == ["mixed", "trained", "0.500", "0.500", "1.000 → 0.500"]
    assert rows[0][5:] == ["0.000 (unreadable) → 0.500", "failed → 0.500", "took too long → 0.500"]
    assert rows[1][1:5] == ["judge", *["does not apply"] * 2, "does not apply → does not apply"]
    assert reasons == ["lost: row 0 lacks boxes", "apart: it reads other pictures."]  # below the table, once
    assert rows[2][0] == "fad (of the set)"
    assert rows[2][2:5] == ["−2.000", "−2.000", "0.100 → 0.100"]  # of a set its value, not the mean of shares
    assert rows[3][2:5] == ["–", "–", "– → –"]


def test_one_output_needs_no_columns_of_its_own() -> None:
    alone = Scores(torch.tensor([math.nan]), torch.tensor([Status.NOT_APPLICABLE]), parts={"set": torch.zeros(1)})
    failed = Scores(torch.tensor([0.0]), torch.tensor([Status.PARSE_FAIL]))
    side = _side(1, fad=alone, format=failed)
    headers, rows, reasons = table(side, side, {})
    assert headers == ["reward", "role", "start", "learned"]
    assert rows[0][::2] == ["fad", "does not apply"] and rows[1][2] == "0.000 (unreadable)"
    assert reasons == ["fad: a set has at least 3 outputs."]


def test_a_reward_that_cannot_judge_leaves_the_others_standing(run: Trained) -> None:
    def stubborn(rollout: Rollout) -> Scores:
        raise CapabilityError("it reads other pictures.")

    both = generate_both(Trained(run.parts, run.step, {**run.rewards, "other": stubborn}), Prompt(ASKED), 1, 0)
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
    assert drawn(Prompt("what?", {"audio": Audio(quiet[:1], 4000)})).size == (640, 96)
    assert "a &lt;b&gt;\nc" in texts_as_html(["a <b>\nc"]) and "(nothing)" in texts_as_html([""])
    assert "<b>2</b>  b" in texts_as_html(["a", "b"])


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
    pytest.importorskip("gradio")
    from mmalign.demo.page import page
    from mmalign.demo.serving import theme

    built = page(run, "tiny")
    theme()
    ask = next(fn for fn in built.fns.values() if fn.api_name == "ask")
    assert ask.concurrency_limit == 1
    assert len(ask.inputs) == 3  # what prompts without media need, and no more
    said, before, after, scores = ask.fn(ASKED, 2, 7)
    assert said.visible is False
    assert [caption for _, caption in before] == ["1", "2"] and before[0][0].tobytes() != after[0][0].tobytes()
    heads, rows = (
        re.findall(r'<th scope="col">(.*?)<', scores.value),
        re.findall(r'"row">(\w+)</th><td>(\w+)', scores.value),
    )
    assert heads[:4] == ["reward", "role", "start (mean)", "learned (mean)"] and scores.visible
    assert rows == [("crisp", "trained"), ("small", "judge")]
    said, *left = ask.fn("", 2, 7)
    assert said.visible and "This cannot be asked" in said.value and "the prompt is empty" in said.value
    assert len(left) == len(ask.outputs) - 1 and all("__type__" in each and len(each) == 1 for each in left)


def test_what_is_not_read_to_its_end_is_said_on_the_page(run: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the same text is asked again, whose embedding is kept."""
    adapter: Any = run.parts.adapter
    monkeypatch.setattr(adapter.loaded.pipeline.tokenizer, "model_max_length", 12)
    long = "a picture of 3 things " * 20
    for _ in range(2):
        before, after = generate_both(run, Prompt(long), 1, 0)
        assert before.cut == after.cut != []
    assert generate_both(run, Prompt(ASKED), 1, 0)[0].cut == []


def test_the_pictures_that_a_rewriter_s_texts_lead_to_are_shown() -> None:
    class Through:
        def made(self, prompts: Any, texts: Any) -> Any:
            return Rollout.of(list(texts), torch.rand(len(texts), 3, 4, 4))

    policy = SimpleNamespace(generate=lambda asked, noise: Rollout.of(asked, ["x"] * len(asked)))
    slots = {"align": SimpleNamespace(reward=Through())}
    parts = SimpleNamespace(reward=SimpleNamespace(slots=slots), policy=policy)
    from mmalign.demo.answers import pictures_of

    run: Any = SimpleNamespace(parts=parts)
    with unchecked():  # the run is only what is read of it
        made = pictures_of(run, Rollout.of(["a"] * 2, ["x", "y"]))
        assert made is not None and made.shape == (2, 3, 4, 4)
        assert pictures_of(run, Rollout.of(["a"], torch.zeros(1, 3, 4, 4))) is None


def test_a_page_of_sounds_pairs_them_and_one_update_is_one(run: Trained) -> None:
    pytest.importorskip("gradio")
    import gradio

    from mmalign.demo.page import _heading, _sides

    with gradio.Blocks() as blocks:
        sides = _sides("audio", ("Start", "Learned, step 1"), None)
    labels = [block.label for block in blocks.blocks.values() if isinstance(block, gradio.Audio)]
    assert labels[:4] == ["1: Start", "1: Learned, step 1", "2: Start", "2: Learned, step 1"]
    assert [len(side) for side in sides] == [2 * 8, 2 * 8]
    file = dataclasses.replace(run.parts.file, adapter={"name": "sd3", "model": "/home/me/base"})
    told = _heading(dataclasses.replace(run, step=1, parts=dataclasses.replace(run.parts, file=file)), "a_[run]")
    assert "1 update;" in told and r"a\_\[run\]" in told and "grpo on sd3 (base)" in told
