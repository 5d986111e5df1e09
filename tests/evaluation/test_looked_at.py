"""What a report says where nothing differs, where a rule is not asked, and where there is nothing to show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.core.types import Prompt, Scores, Status
from mmalign.evaluation.card import card, card_facts, remaking
from mmalign.evaluation.records import Evaluation, RowScores
from mmalign.evaluation.report.charts import Series, aligned_chart, line_chart, path_chart
from mmalign.evaluation.report.curves import curve_sections
from mmalign.evaluation.report.gallery import cards
from mmalign.evaluation.report.page import report_html
from mmalign.evaluation.run_record import RunRecord, read_run
from mmalign.evaluation.table import SummaryRow
from mmalign.evaluation.verdict import verdict
from tests.evaluation.runs import make_run

REST = "data: {name: prompts}\nobjective: {name: grpo}\n"


def row(name: str, delta: float = 0.0, ci: tuple[float, float] = (0.0, 0.0), role: str = "judge") -> SummaryRow:
    return SummaryRow(name=name, role=role, before=0.5, after=0.5 + delta, delta=delta, ci=ci, n=8, win_rate=0.5)  # type: ignore[arg-type]


def ticks_of(chart: str) -> list[float]:
    """The numbers that stand at axes."""
    return [float(t.replace("−", "-")) for t in re.findall(r">([−\d.]+)</text>", chart)]


def test_where_no_row_differs_no_interval_claims_to_know() -> None:
    told = verdict([row("same")])[1]
    assert "same is 0.500 before and after, the same in all 8 rows" in told and "interval" not in told


def test_a_verdict_tells_three_of_many_and_those_that_moved_first() -> None:
    rows = [row(f"m{i}", 0.01, (-0.1, 0.12)) for i in range(7)] + [row("moved", 0.3, (0.2, 0.4))]
    told = verdict(rows)[1]
    assert told.index("moved went") < told.index("m0 went") and "5 more below" in told and "m3" not in told


def test_shares_have_no_axis_below_0_or_above_1() -> None:
    low, high = [(0.0, 0.02), (10.0, 0.01)], [(0.0, 0.97), (10.0, 1.0)]
    for points in (low, high):
        chart = aligned_chart(Series("clip", points, "learned"), Series("truth", points, "truth"))
        assert all(0 <= tick <= 1 for tick in ticks_of(chart) if tick not in (5, 10))
        assert min(ticks_of(line_chart(Series("eval/x", points)))) >= 0
    assert min(ticks_of(line_chart(Series("reward/x", [(0.0, -1.0), (1.0, 2.0)])))) < 0


def test_labels_of_ends_that_fall_together_are_one() -> None:
    still = path_chart(Series("a", [(0.0, 0.5), (9.0, 0.5)]), Series("b", [(0.0, 0.25), (9.0, 0.25)]))
    assert ">start and step 9<" in still and ">start<" not in still
    moved = path_chart(Series("a", [(0.0, 0.5), (9.0, 0.9)]), Series("b", [(0.0, 0.25), (9.0, 0.75)]))
    assert ">start<" in moved and ">step 9<" in moved


def test_what_was_measured_once_is_not_said_to_be_the_same_at_every_step(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.metrics = [{"step": s, "kl/old": s * 1.0, "rows/invalid": 0.0} for s in (1.0, 2.0, 3.0)]
    record.metrics[2]["time/preview"] = 2.5
    found = {section.title: section for section in curve_sections(record)}
    assert found["Seconds per step"].once == [("time/preview", 2.5, 3.0)] and not found["Seconds per step"].constant
    assert found["Objective"].constant == [("rows/invalid", 0.0)] and "Kl" not in found
    assert [name for name, _, _ in found["Policy"].charts] == ["kl/old"]


@pytest.mark.parametrize(
    ("trainer", "policy", "told"),
    [
        ("trainer: {preview_every: 0}", "flow", "samples/ holds no step (trainer.preview_every is 0)"),
        (
            "trainer: {preview_every: 20}",
            "flow",
            "samples/ holds no step (trainer.preview_every is 20, and the run took 6)",
        ),
        (
            "trainer: {preview_every: 2}",
            "flow",
            "samples/ holds no step, though trainer.preview_every is 2: no",
        ),
        ("trainer: {}", "scorer", None),
    ],
)
def test_why_there_are_no_samples(tmp_path: Path, trainer: str, policy: str, told: str | None) -> None:
    (tmp_path / "run.yaml").write_text(f"{trainer}\nadapter: {{name: sd3}}\npolicy: {{name: {policy}}}\n{REST}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 6, "x": 1.0}\n')
    missing = [reason for reason in read_run(tmp_path).missing if reason.startswith("samples/")]
    assert not missing if told is None else missing[0].startswith(told)


def measured(status: list[int]) -> Evaluation:
    prompts = [Prompt("Describe <it>.", meta={"references": ["a red star", "one star"], "boxes": [[1, 2]]})] * 4
    value = torch.tensor([0.5 if s == Status.OK else float("nan") for s in status])
    scores = {"rule": RowScores.of(Scores(value, torch.tensor(status)))}
    return Evaluation("text", prompts, np.arange(4), scores, {}, ["a"] * 4, seed=0, rows=4, repeats=1)


def test_rows_that_a_rule_is_not_about_are_no_alarm_and_captions_stand_beside_their_references(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.after = measured([int(Status.OK), int(Status.NOT_APPLICABLE), int(Status.NOT_APPLICABLE), int(Status.ERROR)])
    record.summary = [row("rule")]
    page = report_html(record)
    assert "rule does not apply to 2 of 4" in page and "rule has no score for 1 of 4 rows" in page
    assert "no row differs" in page and "0.000 to 0.000" not in page
    assert cards(record)[0].facts == [("references", "a red star / one star")] and "a red star / one star" in page


def test_keys_break_at_their_separators_and_commands_wrap(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    page = report_html(read_run(run))
    assert "reward/<wbr>clip" in page and "white-space: pre-wrap" in page and "mmalign 0.1.0, torch 2.11.0" in page
    assert "Loads without mmalign:" in page


def test_a_card_names_what_to_allow_and_the_recipe_that_made_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    text = (run / "run.yaml").read_text() + "\ncombine: {name: 'mine.own:Sum'}\n"
    (run / "run.yaml").write_text(text)
    environment = json.loads((run / "environment.json").read_text())
    environment["command"] = "python -m pipelines.music /home/me/loud/jig --out /home/me/`x`"
    (run / "environment.json").write_text(json.dumps(environment))
    found = card(run)
    assert "mmalign train run.yaml --allow mine.own" in found and "/home/me" not in found
    assert "made by `python -m pipelines.music jig --out ''x''`" in found or "pipelines.music jig" in found
    assert remaking({}) == "mmalign train run.yaml"


@pytest.mark.parametrize(("adapter", "task"), [("image_text", "image-to-text"), ("audio_text", "audio-text-to-text")])
def test_the_task_of_models_that_see_and_hear(tmp_path: Path, adapter: str, task: str) -> None:
    run = make_run(tmp_path / "r", "text")
    (run / "run.yaml").write_text(f"adapter: {{name: {adapter}, model: owner/m}}\npolicy: {{name: tokens}}\n{REST}")
    assert card_facts(read_run(run)).task == task
