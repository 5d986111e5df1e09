"""The files of the founding papers say what is so: what they name exists, and their figures are those of the JSON."""

from __future__ import annotations

import ast
import json
import re
import shlex
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mmalign.papers
from mmalign.cli.listing import find_config
from mmalign.cli.main import application
from mmalign.core.config import draft
from mmalign.core.errors import ConfigError
from mmalign.papers import Paper, Result, founding_papers
from tests.docs.papers_page import page

ROOT = Path(__file__).parents[2]
PAPERS = founding_papers()
COMMANDS = [(paper.number, command) for paper in PAPERS for command in paper.commands]


@lru_cache(maxsize=256)
def defined(file: Path) -> frozenset[str]:
    """The names of the functions and classes of a file."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))


def is_there(place: str) -> bool:
    """Is `file` or `file::name` there?"""
    file, _, name = place.partition("::")
    return (ROOT / file).is_file() and (not name or name in defined(ROOT / file))


def test_all_46_are_there() -> None:
    assert [paper.number for paper in PAPERS] == list(range(1, 47))
    names = [path.name for path in Path(mmalign.papers.__file__).parent.glob("*.yaml")]
    assert sorted(name[:2] for name in names) == [f"{number:02}" for number in range(1, 47)]


def test_the_page_is_made_of_the_files() -> None:
    assert (ROOT / "docs/papers.md").read_text(encoding="utf-8") == page(), (
        "python -m tests.docs.papers_page > docs/papers.md"
    )


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: f"{paper.number:02}")
def test_what_a_file_names_is_there(paper: Paper) -> None:
    assert [place for place in paper.places if "::" not in place or not is_there(place)] == []
    assert [test for test in paper.tests if not test.startswith("tests/") or not is_there(test)] == []
    assert not paper.commands or paper.places, "a command without what it runs"
    assert paper.state == "works" or paper.missing, "what is missing?"
    assert re.fullmatch(r"(\d{4}\.\d{5})?", paper.arxiv)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: f"{paper.number:02}")
def test_figures_are_read_from_files_that_say_what_made_them(paper: Paper) -> None:
    for result in paper.results:
        written = re.sub(r"\{[^{}]*\}", "", result.text)  # a figure's way may hold keys as 0.05
        assert not re.search(r"[{}]|\d\.\d", written), "figures are read, not written"
        assert "{" not in result.sentence and result.sentence != result.text
        text = (ROOT / result.file).read_text(encoding="utf-8")
        assert '"command"' in text and '"commit"' in text, result.file


@pytest.mark.parametrize(("number", "command"), COMMANDS)
def test_a_command_can_be_typed(number: int, command: str) -> None:
    """Its command and options are mmalign's, or its module is there; its run file is read with all changes."""
    program, *words = shlex.split(command)
    if program == "python":
        assert words[0] == "-m" and (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
        return
    assert program == "mmalign"
    assert CliRunner().invoke(application(), [words[0], "--help"]).exit_code == 0
    if words[0] == "train":
        options = words.index("--out") if "--out" in words else len(words)
        draft(find_config(words[1]), words[2:options])
    elif words[0] == "show":
        assert CliRunner().invoke(application(), words).exit_code == 0


def test_a_state_follows_from_the_fields() -> None:
    paper = Paper(1, "A title", "An idea.")
    assert (paper.state, paper.shown_by) == ("missing", "nothing")
    some = replace(paper, places=["mmalign/core/types.py::Scores"], commands=["mmalign list"], missing=["a half"])
    assert (some.state, some.shown_by) == ("partly", "nothing")
    assert replace(some, missing=[]).state == "partly"  # no test
    assert replace(some, missing=[], tests=["tests/x.py"]).state == "works"


def test_figures_are_found_by_name_role_and_place() -> None:
    file = "assets/results/reward_model.json"
    value = json.loads((ROOT / file).read_text())["mean"][1]["after"]
    said = Result(file, "{mean.best_of_4.after} {mean.1.after:.0%}").sentence
    assert said == f"{value:.3f} {value:.0%}"
    with pytest.raises(ConfigError, match="holds no 'truth'"):
        _ = Result(file, "{mean.truth.after}").sentence


def test_a_key_of_a_figure_may_have_dots(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text('{"arms": {"0.05": {"mrr": {"interval": [0.25, 0.5]}}, "0": 1}}')
    assert Result(str(file), "{arms.0.05.mrr.interval.1}").sentence == "0.500"


def test_the_command_prints_one_and_all() -> None:
    def printed(*words: str) -> str:
        result = CliRunner().invoke(application(), ["papers", *words])
        assert result.exit_code == 0, result.output
        return result.output

    works = sum(paper.state == "works" for paper in PAPERS)
    assert f"46 papers: {works} works" in printed()
    one = json.loads(printed("35", "--json"))
    assert one["title"].startswith("Fine-grained") and one["results"][0]["sentence"] in printed("35")
    assert len(json.loads(printed("--json"))) == 46
