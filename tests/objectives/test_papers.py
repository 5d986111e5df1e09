"""The tables of papers stay true: places define their names and tests exist."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import mmalign

PACKAGE, TESTS = Path(mmalign.__file__).parent, Path(__file__).parents[1]
PLACE = re.compile(r"`([\w/.]+\.py)::(\w+)`")


@lru_cache(maxsize=256)
def defined(file: Path) -> frozenset[str]:
    """The names of the functions and classes of a file; none if there is no such file."""
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))


def tables() -> list[list[list[str]]]:
    """The rows of each table of `PAPERS.md`, without its heading."""
    sections = (PACKAGE / "objectives" / "PAPERS.md").read_text(encoding="utf-8").split("\n## ")[1:]
    rows = [[line for line in section.splitlines() if line.startswith("| ")][1:] for section in sections]
    return [[[cell.strip() for cell in line.strip("|").split(" | ")] for line in table] for table in rows]


def absent(cell: str, root: Path) -> list[str]:
    """The places of a cell that are not there."""
    return [f"{file}::{name}" for file, name in PLACE.findall(cell) if name not in defined(root / file)]


def test_a_name_that_is_gone_is_noticed() -> None:
    assert absent("`objectives/grpo.py::GRPO`", PACKAGE) == []
    assert absent("`objectives/grpo.py::PPO`, `objectives/ppo.py::GRPO`", PACKAGE) == [
        "objectives/grpo.py::PPO",
        "objectives/ppo.py::GRPO",
    ]


def test_places_and_tests_of_the_maths_exist() -> None:
    maths = tables()[0]
    assert len(maths) >= 40 and all(len(row) == 5 for row in maths)
    assert all(PLACE.fullmatch(row[2]) and PLACE.fullmatch(row[3]) for row in maths)
    assert [place for row in maths for place in absent(row[2], PACKAGE) + absent(row[3], TESTS)] == []


def test_what_goes_beyond_exists() -> None:
    beyond = tables()[1]
    assert len(beyond) >= 10
    assert [place for row in beyond for place in absent(row[2], PACKAGE)] == []
