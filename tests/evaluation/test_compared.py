"""The page of two runs: valid and whole for every kind of output, true to the numbers, its words fit what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmalign.core.errors import DataError
from mmalign.evaluation.compare import compare_runs, comparison_json
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.compared import open_compared, page_of, write_compared
from mmalign.evaluation.report.detail import LARGEST
from mmalign.evaluation.table import SummaryRow, number_text
from mmalign.evaluation.verdict import comparison_verdict
from tests.chromium import opened, require_chromium
from tests.cli.conftest import call  # noqa: F401  (a fixture)
from tests.evaluation.pages import checked
from tests.evaluation.runs import make_evaluation, make_run


def two_runs(place: Path, modality: str = "image", first: float = 0.25, rows: int = 6) -> tuple[Path, Path]:
    """`one`, whose outputs are worth `first`, and `two`, whose are worth 0.75."""
    one, two = (make_run(place / name, modality) for name in ("one", "two"))
    for run, gain in ((one, first), (two, 0.75)):
        make_evaluation(gain, modality, rows).save(run / "evaluation" / "after")
    return one, two


def written(one: Path, two: Path) -> Path:
    """The page of both, where the command puts it."""
    return write_compared(open_compared(one, two), page_of(one, two))


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_the_page_is_whole_and_says_what_was_compared(tmp_path: Path, modality: str) -> None:
    one, two = two_runs(tmp_path, modality)
    path = written(one, two)
    assert path == two / "compared" / "one.html"
    html, page = checked(path)
    text = " ".join(" ".join(page.text).split())
    for row in compare_runs(one, two)[0]:
        assert f"{number_text(row.delta, signed=True)}" in text
        if row.wins + row.ties + row.losses:
            assert f"{row.wins} / {row.ties} / {row.losses}" in text
    assert "two against one on the same 6 prompts, from the same noise." in text
    assert "The two run files say the same." in text and html.count('class="label before"') == 6
    if modality == "audio":
        assert html.count("<audio") == 12
    if modality == "image":
        assert "each pair was made from the same noise" in text and html.count("data:image/png") == 12
    if modality == "text":
        assert "Words only in one and words only in two are marked" in text


def test_what_differs_between_the_run_files_is_told(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    file = yaml.safe_load((one / "run.yaml").read_text())
    file["objective"] |= {"beta": 0.04}
    file["rewards"] = {"other": {"name": "clip"}}
    file["evaluation"]["judges"]["clip"] = {"name": "clip", "prefix": "c"}
    (one / "run.yaml").write_text(yaml.safe_dump(file))
    (one / "summary.json").unlink()  # which says what the rewards were
    html, page = checked(written(one, two))
    shown = html.split('id="settings"')[1].split("</section>")[0]
    cells = re.findall(
        r'<th scope="row">(.*?)</th><td data-label="one"><code>(.*?)</code></td><td.*?><code>(.*?)</code>', shown
    )
    assert ("objective.<wbr>beta", "0.04", "–") in cells and len(cells) == 7
    assert not any(name.startswith("policy") for name, *_ in cells)
    assert "judge in one, trained in two" in " ".join(page.text)
    told = "clip is not one measure: its options differ between the two run files"
    assert told in " ".join(page.text) and open_compared(one, two).unlike == ["clip"]
    assert json.loads(comparison_json(*compare_runs(one, two)))["unlike"] == ["clip"]
    del file["evaluation"]["judges"]["clip"]["prefix"]  # a release that did not know the option
    (one / "run.yaml").write_text(yaml.safe_dump(file))
    assert open_compared(one, two).unlike == []
    (one / "run.yaml").unlink()
    assert "No run.yaml that can be read beside one." in " ".join(checked(written(one, two))[1].text)


def test_other_noise_is_said_and_other_prompts_are_refused(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    other = Evaluation.load(one / "evaluation" / "after")
    other.seed = 7
    other.save(one / "evaluation" / "after")
    text = " ".join(checked(written(one, two))[1].text)
    assert "from different noise" in text and "the two sides drew different noise" in text
    make_evaluation(0.5, rows=4).save(one / "evaluation" / "after")
    with pytest.raises(DataError, match="no two of their evaluations"):
        written(one, two)


def test_runs_of_one_name_and_an_evaluation_alone(tmp_path: Path) -> None:
    first, two = (two_runs(tmp_path / name)[1] for name in "ab")
    text = " ".join(" ".join(checked(written(first, two))[1].text).split())
    assert f"{two} against {first} on the same" in text
    alone = checked(written(first / "evaluation" / "after", two))[1]
    assert "The two run files say the same." in " ".join(alone.text)  # that of the run which the evaluation is of


def test_large_pictures_are_made_smaller_until_the_page_is_small(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    noise = np.random.default_rng(0)
    for run in (one, two):
        kept = Evaluation.load(run / "evaluation" / "after")
        kept.outputs = noise.integers(0, 255, (6, 3, 1100, 1100), dtype=np.uint8)
        kept.save(run / "evaluation" / "after")
    html, page = checked(written(one, two))
    assert len(html.encode()) < LARGEST and "To keep it small it shows" in " ".join(page.text)


def row(name: str, delta: float, reach: float, role: str) -> SummaryRow:
    return SummaryRow(name, role, 0.5, 0.5 + delta, delta, (delta - reach, delta + reach), 8, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "tone", "said"),
    [
        ([row("t", 0.2, 0.1, "verifier")], "good", "b is better than a: t is 0.700 in b and 0.500 in a (+0.200"),
        ([row("t", -0.2, 0.1, "judge")], "bad", "b is worse than a: t is"),
        ([row("t", 0.01, 0.1, "judge")], "even", "b and a do not differ beyond chance: t is"),
        (
            [row("t", 0.2, 0.1, "judge"), row("u", -0.2, 0.1, "judge")],
            "even",
            "b is better than a by some measures and worse by others: t is",
        ),
        (
            [row("r", 0.2, 0.1, "trained"), row("t", -0.2, 0.1, "verifier"), row("j", 0.2, 0.1, "judge")],
            "bad",
            "b is worse than a, though its trained reward is higher: t is",
        ),
        (
            [row("r", 0.2, 0.1, "trained")],
            "good",
            "b is better than a (on what was trained on, which tells nothing of reward hacking): r is",
        ),
        ([row("t", 0.0, 0.0, "judge")], "even", "beyond chance: t is 0.500 in both, the same in all 8 rows."),
        ([], "even", ""),
    ],
)
def test_the_verdict(rows: list[SummaryRow], tone: str, said: str) -> None:
    found = comparison_verdict(rows, ("a", "b"))
    assert found[0] == tone and said in found[1]


def test_the_command_prints_a_table_and_writes_the_page(tmp_path: Path, call: Any) -> None:  # noqa: F811
    one, two = two_runs(tmp_path)
    code, out, err = call("compare", one, two, "--out", tmp_path / "p.html")
    assert code == 0 and "two against one" in out and (tmp_path / "p.html").exists(), err
    assert not (two / "compared").exists()
    code, out, _ = call("compare", one, two, "--json")
    assert code == 0 and '"compared"' in out and not (two / "compared").exists()
    code, _, err = call("compare", one, two, "--json", "--out", tmp_path / "q.html")
    assert code == 2 and "--json and --out: JSON is printed and writes no page; leave one out." in err


@pytest.mark.slow
def test_it_is_read_by_keys_on_a_telephone(tmp_path: Path) -> None:
    require_chromium()
    path = written(*two_runs(tmp_path))
    with opened() as page:
        for width in (390, 1280):
            page.look(width, dark=width == 390)
            page.open(path.as_uri())
            assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.run("document.querySelector('input[value=slide]').focus()")
        page.press(" ", "Space", 32)
        page.wait("document.querySelectorAll('.over input[type=range]').length === 6")
        label = page.run("document.querySelector('.over input').getAttribute('aria-label')")
        assert label.endswith(", one left of the line, two right of it; the line, in per cent")
        page.run("document.querySelector('.over input').focus()")
        page.press("ArrowRight", "ArrowRight", 39)
        assert page.run("document.querySelector('.over').style.getPropertyValue('--at')") == "51%"
        assert page.faults == []
