"""The report is one valid, self-contained file, whatever is missing; its charts show the numbers they are given."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report import write_report
from mmalign.evaluation.report.boxes import ANSWERED, TRUE, drawing
from mmalign.evaluation.report.charts import (
    Scale,
    Series,
    aligned_chart,
    interval_mark,
    line_chart,
    path_chart,
    smoothed,
    ticks,
)
from mmalign.evaluation.report.curves import against_truth, curve_sections, time_shares
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import SummaryRow
from mmalign.evaluation.verdict import verdict
from tests.evaluation.pages import checked
from tests.evaluation.runs import make_run

PARTS = ["run.yaml", "environment.json", "metrics.jsonl", "summary.json", "evaluation", "samples", "checkpoints"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a <b> run")


def test_page_is_valid_and_holds_everything(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    html, page = checked(path)
    text = " ".join(page.text)
    assert "a <b> run" in text and "mmalign train run.yaml" in text and "1 min 15 s" in text
    assert html.count("data:image/png") == 12 and html.count("data:image/jpeg") == 2
    assert "✓ holds" in text and "✗ fails" in text and "timeout" in text
    assert "alert('x')" in text and "<script>alert" not in html
    assert "clip has no score for 1 of 6 rows" in text
    assert "reward/clip/invalid" in text and "The same at every step" in text
    assert "owner/tiny-model" in text and 'load_lora_weights(f"{run}/checkpoints/step_000040/adapter")' in text
    assert "Missing from this directory" not in text
    assert [p.name for p in run.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_other_modalities(tmp_path: Path, modality: str) -> None:
    html, page = checked(write_report(make_run(tmp_path / "r", modality), tmp_path / "elsewhere.html"))
    if modality == "text":
        assert "<b>answer</b> 3" in " ".join(page.text) and "&lt;b&gt;answer" in html
    else:
        assert html.count("<audio") == html.count('class="sound" src="data:image/jpeg') == 12 + 2 * 6
        assert "loudness is as generated" in " ".join(page.text)


def test_what_prompts_are_about_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "text")
    for side in ("before", "after"):
        found = Evaluation.load(run / "evaluation" / side)
        found.prompts = [replace(p, media={"image": torch.full((3, 4, 4), 0.5)}) for p in found.prompts]
        found.save(run / "evaluation" / side)
    html, _ = checked(write_report(run))
    assert html.count('<img class="asked"') == 6
    kept = Evaluation.load(run / "evaluation" / "after").prompt_pictures[5]
    np.testing.assert_allclose(kept, np.full((3, 4, 4), 127.5), atol=1)


def test_boxes_are_drawn_where_the_answer_and_the_truth_say(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "text")
    file = yaml.safe_load((run / "run.yaml").read_text())
    file["rewards"]["near"] = {"name": "iou", "weight": 1.0}
    (run / "run.yaml").write_text(yaml.safe_dump(file))
    for side in ("before", "after"):
        found = Evaluation.load(run / "evaluation" / side)
        found.outputs = ["[ 32 , 0 , 64 , 64 ]", *["nowhere"] * 5]
        meta = {"boxes": [[0, 0, 16, 16]], "size": [64, 64]}
        found.prompts = [replace(p, media={"image": torch.ones(3, 64, 64)}, meta=meta) for p in found.prompts]
        found.save(run / "evaluation" / side)
    html, page = checked(write_report(run))
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        for data in re.findall(r'<img class="asked" src="data:image/png;base64,([^"]+)"', html)
    ]
    assert len(pictures) == 12 and pictures[0].size == (256, 256)
    green, orange = ImageColor.getrgb(TRUE), ImageColor.getrgb(ANSWERED)
    assert pictures[0].getpixel((63, 30)) == green and pictures[0].getpixel((128, 30)) == orange
    assert orange not in {colour for _, colour in pictures[2].getcolors()}
    assert "Boxes: true ones green" in " ".join(page.text)


@pytest.mark.parametrize(
    ("answer", "meta"),
    [
        ("[ 1 , 1 , 2 , 900 ]", {"boxes": [[0, 0, 1, 1]], "size": [1000, 1000]}),  # thinner than a shown pixel
        ("[ 1 , 1 , 20 , 90 ]", {"boxes": [[9, 9, 1, 1]], "size": [1000, 1000]}),  # no true box
        ("[ 1 , 1 , 20 , 90 ]", {"boxes": [[0, 0, 1, 1]], "size": [1000]}),
    ],
)
def test_no_box_keeps_a_report_from_being_written(answer: str, meta: dict[str, object]) -> None:
    draw = drawing({"rewards": {"near": {"name": "iou"}}})
    picture, prompt = Image.new("RGB", (256, 256)), Prompt("?", media={"image": torch.ones(3, 1000, 1000)}, meta=meta)
    assert draw is not None and draw(prompt, answer, picture) is None
    assert drawing({"rewards": {"clip": {"name": "clip"}}}) is None and drawing({}) is None


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_missing(run: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / part) if (copy / part).is_dir() else (copy / part).unlink()
    text = " ".join(checked(write_report(copy))[1].text)
    said = {"samples": "samples/ holds no step", "evaluation": "evaluation/before is not there"}
    assert part == "checkpoints" or said.get(part, f"{part} is not there") in text
    assert part != "checkpoints" or "No checkpoint to load" in text


def test_an_empty_directory_names_everything_and_no_directory_is_an_error(tmp_path: Path) -> None:
    _, page = checked(write_report(tmp_path))
    assert "".join(page.text).count("is not there") == 6
    with pytest.raises(DataError, match=r"gone: no such run directory"):
        write_report(tmp_path / "gone")


def test_broken_parts_are_named(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.jsonl").write_text((copy / "metrics.jsonl").read_text() + '{"step": 41, "rew')
    (copy / "summary.json").write_text("[]")
    (copy / "environment.json").write_text("{")
    (copy / "run.yaml").write_text("a: [")
    (copy / "samples" / "step_000040" / "contact_sheet.png").write_bytes(b"x")
    (copy / "evaluation" / "after" / "outputs" / "0001.png").write_bytes(b"")
    text = " ".join(checked(write_report(copy))[1].text)
    for sentence in (
        "metrics.jsonl, line 45, is not a step and is left out",
        "summary.json could not be read",
        "environment.json could not be read",
        "run.yaml could not be read: not YAML",
        "samples/step_000040 could not be read",
        "0001.png: the file is empty",
    ):
        assert sentence in text, sentence


def test_metrics_of_one_step_are_merged_and_sorted_into_sections(run: Path) -> None:
    record = read_run(run)
    assert len(record.metrics) == 40 and record.curve("eval/truth")[0] == (10, pytest.approx(0.35))
    assert "policy/kl" not in record.metric_names()
    found = curve_sections(record)
    assert [s.title for s in found] == [
        "Rewards on training prompts",
        "Rewards on held-out prompts",
        "Optimisation",
        "Seconds per step",
    ]
    assert [name for name, *_ in found[2].charts] == ["grad/norm"] and found[2].constant == [("lr", 1e-4)]
    assert time_shares(record) == [("collect", 2.0, pytest.approx(2 / 3)), ("update", 1.0, pytest.approx(1 / 3))]


def test_truth_is_drawn_from_before_to_after(run: Path) -> None:
    (pair,) = against_truth(read_run(run))
    assert (pair.learned, pair.truth, pair.role) == ("clip", "truth", "verifier")
    assert pair.path.count("<circle") == 5  # before, steps 10 to 30, after in the place of step 40


def coordinates(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    found = re.findall(rf'<polyline class="{kind}[^"]*" points="([^"]+)"', svg)
    lines = [[pair.split(",") for pair in points.split()] for points in found]
    return [[(float(x), float(y)) for x, y in line] for line in lines]


def test_aligned_series_start_together_and_keep_their_own_axes() -> None:
    learned = Series("reward", [(0, 5.0), (10, 9.0)], "learned")
    truth = Series("truth", [(0, 0.6), (10, 0.4)], "truth")
    rising, falling = coordinates(aligned_chart(learned, truth, 400, 200), "line")
    assert rising[0] == falling[0] and rising[1][1] < rising[0][1] < falling[1][1]
    assert rising[0][1] - rising[1][1] == pytest.approx(falling[1][1] - falling[0][1], abs=0.2)
    flat = Series("truth", [(0, 0.6), (10, 0.61)], "truth")
    (_, level) = coordinates(aligned_chart(learned, flat, 400, 200), "line")
    assert abs(level[1][1] - level[0][1]) < 10, "noise of a rate is blown up to the size of the reward's rise"


def test_path_interpolates_the_learned_reward_at_the_steps_of_the_truth() -> None:
    steps, values = [0, 4, 9, 12], [1.0, 3.0, 2.0, 5.0]
    truth = Series("t", [(0, 0.1), (2, 0.2), (6, 0.3), (12, 0.4)])
    (path,) = coordinates(path_chart(Series("l", list(zip(steps, values, strict=True))), truth), "line")
    expected = np.interp([0, 2, 6, 12], steps, values)
    slope, shift = np.polyfit(expected, [x for x, _ in path], 1)
    np.testing.assert_allclose([x for x, _ in path], slope * expected + shift, atol=0.1)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_charts_stay_inside_their_frame(values: list[float]) -> None:
    series = Series("m", list(enumerate(values, 1)))
    for svg in (line_chart(series), line_chart(series, whole=True)):
        for line in coordinates(svg, "(?:raw|line)"):
            assert all(0 <= x <= 320 and 0 <= y <= 150 for x, y in line)


@settings(max_examples=50)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 6))
def test_ticks_are_round_inside_and_enough(low: float, width: float, about: int) -> None:
    if low + width == low or width < 1e-9 * abs(low):
        return
    found = ticks(low, low + width, about)
    assert about - 1 <= len(found) <= 2.5 * about + 2
    slack = 1e-9 * max(abs(low), abs(low + width)) + 1e-6 * width  # of either sign: the ends may be negative
    assert all(low - slack <= t <= low + width + slack for t in found)


def test_smoothing_keeps_constants_ends_and_short_curves() -> None:
    line = [(float(i), 3.0) for i in range(100)]
    assert smoothed(line) == line and smoothed(line[:20]) == line[:20]
    noisy = [(float(i), float(i % 2)) for i in range(120)]
    assert max(abs(v - 0.5) for _, v in smoothed(noisy)) < 0.15


def test_long_curves_are_thinned_without_losing_their_mean() -> None:
    (line, _) = coordinates(line_chart(Series("m", [(i, float(i)) for i in range(10_000)])), "(?:raw|line)")
    assert len(line) <= 400


def test_interval_mark_and_scale() -> None:
    assert 'class="mark good"' in interval_mark(0.2, 0.1, 0.3) and 'class="mark bad"' in interval_mark(-1, -2, -0.5)
    assert 'class="mark even"' in interval_mark(0.1, -0.1, 0.3) and interval_mark(0.1, float("nan"), 1) == ""
    assert Scale(0, 10, 100, 0)(2.5) == 75


def row(name: str, role: str, delta: float, half: float) -> SummaryRow:
    return SummaryRow(name, role, 0.5, 0.5 + delta, delta, (delta - half, delta + half), 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("truth", "tone", "says"),
    [
        (
            row("t", "verifier", 0.2, 0.1),
            "good",
            r"^Better on held-out prompts: t went from 0\.500 to 0\.700 \(\+0\.200",
        ),
        (
            row("t", "verifier", -0.2, 0.1),
            "bad",
            "^Reward hacking, the trained reward rose while the truth fell: t went",
        ),
        (row("t", "judge", 0.0, 0.1), "even", "^The trained reward rose, the truth did not move beyond chance"),
    ],
)
def test_verdicts(truth: SummaryRow, tone: str, says: str) -> None:
    trained = row("r", "trained", 0.3, 0.1)
    found = verdict([trained, truth])
    assert found[0] == tone and re.search(says, found[1])
    assert verdict([trained])[1].startswith("No judge or verifier measured this run") and verdict([]) == ("even", "")
    assert verdict([row("r", "trained", 0, 1), row("t", "verifier", 0, 1)])[1].startswith("No change beyond chance")
    some = verdict([row("v", "verifier", 0.2, 0.1), row("t", "verifier", 0, 0.1)])
    assert some[0] == "good" and "by some measures" in some[1]
    worse = verdict([row("r", "trained", 0, 0.1), row("t", "verifier", -0.2, 0.1)])
    assert worse == ("bad", worse[1]) and worse[1].startswith("Worse on held-out prompts")
    mixed = [row("up", "trained", 0.3, 0.1), row("down", "trained", -0.3, 0.1), row("t", "verifier", 0, 0.1)]
    assert verdict(mixed)[1].startswith("No change beyond chance")


def test_rewards_of_training_are_never_drawn_beside_a_truth_that_was_held_out() -> None:
    from mmalign.evaluation.report.curves import _on_one_side

    record = RunRecord(Path())
    record.metrics = [{"step": step, "reward/clip": step / 10} for step in (1.0, 2.0, 3.0)]
    record.metrics[1]["eval/clip"] = 0.5
    record.summary = [
        SummaryRow(name, "trained", before=0.0, after=1.0, delta=1.0, ci=(0.5, 1.5), n=8) for name in ("clip", "truth")
    ]
    told, known, where = _on_one_side(record, "clip", "truth")
    assert (told, known, where) == ([(0.0, 0.0), (2.0, 0.5), (3.0, 1.0)], [(0.0, 0.0), (3.0, 1.0)], "")
    record.summary = []
    for step, value in ((0, 0.0), (2, 1.0)):
        record.metrics[step]["reward/truth"] = value
    assert _on_one_side(record, "clip", "truth")[2] == " (training prompts)"
    for line in record.metrics:
        line.pop("reward/truth", None)
    assert _on_one_side(record, "clip", "truth")[1] == []
