"""Before and after as rows: golden JSON, pairing rules, and what people read."""

import io
import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from mmalign.core.errors import DataError
from mmalign.core.types import Prompt, Scores, Status
from mmalign.evaluation.compare import compare, compare_runs, comparison_json, comparison_table, sign_test
from mmalign.evaluation.records import Evaluation, RowScores, SetValue
from mmalign.evaluation.table import (
    SummaryRow,
    evaluation_table,
    number_text,
    read_summary,
    roles_of,
    summarize,
    summary_table,
    write_summary,
)


def evaluation(values: dict[str, list[float]], repeats: int = 1, sets: dict | None = None, seed: int = 0) -> Evaluation:
    n = len(next(iter(values.values())))
    scores = {}
    for name, column in values.items():
        value = torch.tensor(column)
        scores[name] = RowScores.of(Scores(value, torch.where(value.isnan(), int(Status.ERROR), 0).to(torch.int8)))
    asked = [Prompt(f"prompt {i // repeats}") for i in range(n)]
    group = np.arange(n) // repeats
    return Evaluation("text", asked, group, scores, sets or {}, [p.text for p in asked], seed, 64, repeats)


def printed(table: object, width: int = 160) -> str:
    written = io.StringIO()
    Console(file=written, width=width).print(table)
    return written.getvalue()


NAN = math.nan
ROLES = roles_of(
    {
        "rewards": {"clip": {"name": "clip"}, "watch": {"name": "x", "monitor": True}},
        "evaluation": {"judges": {"other": {"name": "y"}, "truth": {"name": "z", "role": "verifier"}}},
    }
)


def test_roles_of_a_run_file() -> None:
    assert ROLES == {"clip": "trained", "watch": "judge", "other": "judge", "truth": "verifier"}
    assert roles_of({"rewards": None}) == {}


def test_rows_pair_what_both_have_and_follow_the_roles() -> None:
    before = evaluation({"truth": [0.0, 1, 0, NAN], "clip": [1.0, 2, 3, 4]})
    after = evaluation({"truth": [1.0, 1, NAN, 1], "clip": [2.0, 3, 4, 5]})
    clip, truth = summarize(before, after, ROLES)
    assert (clip.name, clip.role, clip.before, clip.after, clip.delta, clip.n) == ("clip", "trained", 2.5, 3.5, 1.0, 4)
    assert clip.ci == (1.0, 1.0)
    assert (truth.role, truth.before, truth.after, truth.delta, truth.n) == ("verifier", 0.5, 1.0, 0.5, 2)


def test_set_rewards_use_the_resamples_both_share() -> None:
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).numpy()
    sets = [{"fad": SetValue(v, v + 5 * noise - 1 + 0.01 * k * noise, 8)} for k, v in enumerate((-3.0, -1.0))]
    before, after = (evaluation({"clip": [0.0] * 8}, sets=s) for s in sets)
    row = summarize(before, after, {})[1]
    assert (row.name, row.role, row.before, row.after, row.delta, row.n) == ("fad", "judge", -3.0, -1.0, 2.0, 8)
    assert row.ci == pytest.approx((2.0, 2.0), abs=0.05), "the spread common to both sides should cancel"
    assert compare(before, after)[1].win_rate == 1.0


def test_golden_summary(tmp_path: Path) -> None:
    rows = [
        SummaryRow("clip", "trained", 0.25, 0.5, 0.25, (0.125, 0.375), 64, 0.75),
        SummaryRow("truth", "verifier", NAN, NAN, NAN, (-math.inf, NAN), 0),
    ]
    write_summary(rows, tmp_path / "summary.json", 12.34567, "report.html")
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "rows": [
            {
                "name": "clip",
                "role": "trained",
                "before": 0.25,
                "after": 0.5,
                "delta": 0.25,
                "ci": [0.125, 0.375],
                "n": 64,
                "win_rate": 0.75,
            },
            {
                "name": "truth",
                "role": "verifier",
                "before": None,
                "after": None,
                "delta": None,
                "ci": [None, None],
                "n": 0,
                "win_rate": None,
            },
        ],
        "seconds": 12.346,
        "report": "report.html",
    }
    assert read_summary(tmp_path / "summary.json")[0] == rows[0]
    assert math.isnan(read_summary(tmp_path / "summary.json")[1].before)
    (tmp_path / "bad.json").write_text('{"rows": [{"name": 1}]}')
    with pytest.raises(DataError, match=r"bad\.json: not a summary"):
        read_summary(tmp_path / "bad.json")
    with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
        read_summary(tmp_path / "gone.json")


def test_different_prompts_are_refused_and_other_noise_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    four, three = evaluation({"r": [1.0, 2, 3, 4]}), evaluation({"r": [1.0, 2, 3]})
    with pytest.raises(DataError, match="4 and 3 rows, row 3 is 'prompt 3' and nothing; evaluate both on the same"):
        summarize(four, three, {})
    other = evaluation({"r": [1.0, 2, 3, 4], "extra": [0.0] * 4}, seed=9)
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert len(summarize(four, other, {})) == 1
    assert "left out: extra" in caplog.text and "drew different noise" in caplog.text


def test_printed_tables() -> None:
    before, after = evaluation({"truth": [0.0] * 9 + [NAN]}), evaluation({"truth": [1.0] * 10})
    text = printed(summary_table(summarize(before, after, ROLES)))
    assert "truth" in text and "verifier" in text and "+0.529 to +1.000" in text and " 9 " in text
    assert "0.722 to 1.000" in printed(evaluation_table(after)) and " 1 " in printed(evaluation_table(before))
    text = printed(comparison_table(compare(before, after), ("base", "tuned")))
    assert "tuned against base" in text and "9 / 0 / 0" in text and "100%" in text and "0.0039" in text


def test_comparison_counts_prompts_not_rows() -> None:
    a = evaluation({"r": [0.0, 0, 5, 5, 1, 1, 2, NAN]}, repeats=2)
    b = evaluation({"r": [1.0, 0, 4, 4, 1, 1, 3, 9]}, repeats=2)
    (found,) = compare(a, b)
    assert (found.wins, found.losses, found.ties, found.win_rate, found.n) == (2, 1, 1, 0.625, 7)
    assert found.p == pytest.approx(stats.binomtest(2, 3).pvalue)
    (mirror,) = compare(b, a)
    assert (mirror.wins, mirror.losses, mirror.p) == (1, 2, found.p)


def test_sign_test_against_the_closed_form() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(10, 0) == pytest.approx(2 * 0.5**10)
    assert sign_test(7, 3) == pytest.approx(2 * sum(math.comb(10, k) for k in range(4)) / 2**10)


def test_runs_are_found_by_their_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, gain in (("a", 0.0), ("b", 1.0)):
        evaluation({"r": (rng.random(20) + gain).tolist()}).save(tmp_path / name / "evaluation" / "after")
    (found,), _ = compare_runs(tmp_path / "a", tmp_path / "b" / "evaluation" / "after")
    assert found.wins == 20 and found.p < 1e-4
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"c: holds no evaluation; looked for evaluation\.json"):
        compare_runs(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "+0.123"),
        (-0.5, "−0.500"),
        (12.345, "+12.35"),
        (123456.7, "+123456.7"),
        (1e-5, "+1e-05"),
        (0.0, "0.000"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number_text(value, signed=True) == text
    assert number_text(NAN) == "–" and number_text(-math.inf) == "−∞"


def test_runs_of_other_prompts_are_compared_where_both_were_measured_on_the_same(tmp_path: Path) -> None:
    asked = {"a": ["x", "y"], "b": ["u", "v"]}
    for run, own in asked.items():
        for folder, texts in (
            (f"{run}/evaluation/after", own),
            (f"{run}/evaluated/1-new/evaluation/after", ["s", "t"]),
        ):
            found = evaluation({"truth": [0.0, 1.0] if run == "a" else [1.0, 1.0]})
            found.prompts = [Prompt(text) for text in texts]
            found.save(tmp_path / folder)
    (row,), folders = compare_runs(tmp_path / "a", tmp_path / "b")
    assert row.wins == 1 and [folder.parent.parent.name for folder in folders] == ["1-new", "1-new"]
    plain = json.loads(comparison_json([row], folders))
    assert plain["rows"][0]["wins"] == 1 and plain["compared"][0].endswith("evaluation/after")
    shutil.rmtree(tmp_path / "b" / "evaluated")
    with pytest.raises(DataError, match=r"no two of their evaluations \(2 and 1\) asked the same prompts"):
        compare_runs(tmp_path / "a", tmp_path / "b")


def test_a_long_name_is_not_cut_at_eighty_columns() -> None:
    name = "alignment_of_what_was_asked_for"
    before, after = evaluation({name: [0.0] * 9}), evaluation({name: [1.0] * 9})
    table = comparison_table(compare(before, after), ("runs/a_long_name_of_a_run", "runs/another_long_name"))
    assert name in "".join(line.split("│")[1].strip() for line in printed(table, 80).splitlines() if "│" in line)
