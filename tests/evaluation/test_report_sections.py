"""Sections of the report against the rows that they were made from, and the page in a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmalign.core.types import Prompt
from mmalign.evaluation.bootstrap import paired_interval
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.detail import LARGEST, LEVELS, Detail
from mmalign.evaluation.report.differences import MOST_WORDS, word_differences
from mmalign.evaluation.report.gallery import cards
from mmalign.evaluation.report.page import report_html
from mmalign.evaluation.report.parts import reward_parts, row_parts
from mmalign.evaluation.report.subsets import subsets
from mmalign.evaluation.run_record import RunRecord, read_run
from tests.chromium import opened
from tests.evaluation.runs import make_evaluation, make_run

WORDS = st.text(st.sampled_from(["a", "b", "c", " ", "\n"]), max_size=40)


@given(WORDS, WORDS)
def test_pieces_are_the_texts_and_what_is_the_same_is_in_both(before: str, after: str) -> None:
    gone, new = word_differences(before, after)
    assert ("".join(p.text for p in gone), "".join(p.text for p in new)) == (before, after)
    assert {p.kind for p in gone} <= {"same", "gone"} and {p.kind for p in new} <= {"same", "new"}
    kept = [" ".join(p.text for p in side if p.kind == "same").split() for side in (gone, new)]
    assert kept[0] == kept[1]


def test_a_word_that_changed_is_marked_and_long_texts_are_not_compared() -> None:
    gone, new = word_differences("a red star on white", "a blue star on white")
    assert [(p.kind, p.text) for p in gone] == [("same", "a "), ("gone", "red "), ("same", "star on white")]
    assert [(p.kind, p.text) for p in new] == [("same", "a "), ("new", "blue "), ("same", "star on white")]
    long = "word " * (MOST_WORDS + 1)
    assert [p.kind for side in word_differences(long, "other") for p in side] == ["same", "same"]


def record_of(before: Evaluation | None, after: Evaluation) -> RunRecord:
    return RunRecord(Path("r"), before=before, after=after)


def test_parts_are_means_over_rows_that_have_them_in_both() -> None:
    before, after = make_evaluation(0.25), make_evaluation(0.75)
    after.scores["clip"].parts["raw"][0] = np.nan
    ((reward, part),) = [(group.reward, group.parts[0]) for group in reward_parts(record_of(before, after))]
    was, is_ = before.scores["clip"].parts["raw"][1:-1], after.scores["clip"].parts["raw"][1:-1]
    assert (reward, part.name, part.change.n) == ("clip", "raw", 4)
    assert part.before == pytest.approx(was.mean()) and part.after == pytest.approx(is_.mean())
    assert part.change.value == pytest.approx((is_ - was).mean()) and part.bars is None  # 2 x 1.05 is beyond a share
    (alone,) = reward_parts(record_of(None, after))
    assert np.isnan(alone.parts[0].before) and alone.parts[0].after == pytest.approx(is_.mean())
    assert row_parts(after, 2) == {}  # a single part says no more than the score
    after.scores["clip"].parts["other"] = np.full(6, 0.5, dtype=np.float32)
    assert [name for name, _ in row_parts(after, 2)["clip"]] == ["raw", "other"]
    shown = cards(record_of(before, after))[1].parts
    assert [(name, [row.name for row in rows]) for name, rows in shown] == [("clip", ["raw", "other"])]
    assert shown[0][1][1].bars == [None, 50.0] and shown[0][1][1].texts == ["–", "0.500"]


def of_kinds(evaluation: Evaluation, kinds: list[object]) -> Evaluation:
    asked = [replace(p, meta={"kind": kind}) for p, kind in zip(evaluation.prompts, kinds, strict=True)]
    return replace(evaluation, prompts=asked)


def test_subsets_are_those_of_columns_that_divide_the_prompts() -> None:
    kinds: list[object] = ["b", "a", "b", "a", "b", "a"]
    before, after = (of_kinds(make_evaluation(gain), kinds) for gain in (0.25, 0.75))
    record = record_of(before, after)
    record.run = {"rewards": {"truth": {"name": "rule"}}}
    (table,) = subsets(record)
    assert (table.column, table.measures) == ("kind", ["truth", "clip"])  # what is trained on first
    assert [(value, count) for value, count, _ in table.rows] == [("b", 3), ("a", 3)]
    of = np.array([kind == "a" for kind in kinds])
    expected = paired_interval(before.values("truth")[of], after.values("truth")[of], after.group[of])
    assert table.rows[1][2][0] == expected
    alone = record_of(None, after)
    assert subsets(alone) == []


@pytest.mark.parametrize("kinds", [[1, 2, 3, 4, 5, 6], ["a"] * 6, [["a"]] * 6, ["a"] * 5 + ["b"]])
def test_without_such_a_column_prompts_are_short_or_long(kinds: list[object]) -> None:
    before, after = (of_kinds(make_evaluation(gain), kinds) for gain in (0.25, 0.75))
    assert subsets(record_of(before, after)) == []  # all but one have two words
    asked = [Prompt("one"), Prompt("two"), Prompt("a b c"), Prompt("a b c d"), Prompt("six"), Prompt("a b")]
    record = record_of(replace(before, prompts=asked), replace(after, prompts=asked))
    (table,) = subsets(record)
    assert table.column == "words in the prompt"
    assert [(value, count) for value, count, _ in table.rows] == [("up to 1", 3), ("more than 1", 3)]


def test_numbers_are_in_the_order_of_their_size() -> None:
    before, after = (of_kinds(make_evaluation(gain), [10, 2, 10, 2, 10, 2]) for gain in (0.25, 0.75))
    assert [value for value, _, _ in subsets(record_of(before, after))[0].rows] == ["2", "10"]


@pytest.mark.slow
def test_a_page_of_large_pictures_stays_small_and_says_what_it_shows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    noise = np.random.default_rng(0).integers(0, 256, (12, 3, 640, 640), dtype=np.uint8)
    for side in ("before", "after"):
        replace(make_evaluation(0.5, rows=12), outputs=noise).save(run / "evaluation" / side)
    html = report_html(read_run(run))
    assert 500_000 < len(html.encode()) < LARGEST
    assert "To keep it small it shows" in html and " of 640 pixels" in html
    small = report_html(read_run(make_run(tmp_path / "small")))
    assert "Nothing was shrunk or left out" in small


def test_every_level_shows_less_and_long_texts_are_cut_aloud() -> None:
    levels = [Detail(**level) for level in LEVELS]  # type: ignore[arg-type]
    for more, less in pairwise(levels):
        assert more.pixels > less.pixels and more.sheet_pixels > less.sheet_pixels and more.letters >= less.letters
        assert more.cards >= less.cards and more.sheets >= less.sheets and (more.seconds or 1e9) > less.seconds
    detail = Detail(letters=5)
    after = make_evaluation(0.5, "text")
    (first, *_) = cards(record_of(None, after), detail)
    assert first.sides[0].text == "<b>an…" and list(detail.sentences) == ["texts up to 5 characters"]


def test_what_was_run_and_from_what_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "commit": "abc123", "finished": 40}))
    html = report_html(read_run(run))
    assert "owner/tiny-model, trained by grpo for 40 steps on clip; truth and fid only measured (6 held-out" in html
    for name, value in (("Data", "p.txt, prompts"), ("Commit", "abc123"), ("Command", "mmalign train run.yaml")):
        assert f'<th scope="row">{name}</th><td>{value}</td>' in html
    assert "<dt>Alarms</dt><dd>none</dd>" in html and 'class="progress' not in html
    (run / "alarms.jsonl").write_text('{"step": 20, "kind": "turned", "about": "truth", "text": "truth fell."}\n')
    told = report_html(read_run(run))
    assert "<b>step 20</b> truth fell." in told and "<dt>Alarms" not in told
    file = yaml.safe_load((run / "run.yaml").read_text()) | {"trainer": {"alarms": "none"}}
    (run / "run.yaml").write_text(yaml.safe_dump(file))
    (run / "alarms.jsonl").unlink()
    assert "<dt>Alarms</dt><dd>not looked for</dd>" in report_html(read_run(run))


@pytest.mark.slow
def test_in_a_browser_a_slider_moves_by_keys_and_foreign_scripts_do_not_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    html = report_html(read_run(run))
    page_file = tmp_path / "report.html"
    page_file.write_text(html.replace("</main>", "<script>window.foreign = 1</script></main>"), encoding="utf-8")
    with opened() as page:
        page.look(1280)
        page.open(page_file.as_uri())
        assert page.run("window.foreign === undefined && !document.querySelector('.ways').hidden")
        assert page.run("getComputedStyle(document.querySelector('.side > img')).display") == "block"
        page.run("document.querySelector('input[value=slide]').click()")
        page.run("document.querySelector('.over input').focus()")
        page.press("ArrowRight", number=39)
        assert page.run("document.querySelector('.over').style.getPropertyValue('--at')") == "51%"
        assert page.run("getComputedStyle(document.querySelectorAll('.over img')[1]).clipPath").endswith("51%)")
        assert page.run("getComputedStyle(document.querySelector('.side > img')).display") == "none"
        page.look(390, 844, dark=True)
        assert page.run("document.documentElement.scrollWidth") == 390  # nothing is wider than a telephone
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
        assert all("Content Security Policy" in fault for fault in page.faults)
