"""The table of papers stays true: every place defines its name and every test exists."""

import re
from pathlib import Path

import mmalign.objectives

HERE = Path(mmalign.objectives.__file__).parent
ROW = re.compile(r"\| [^|]+ \| [^|]+ \| `([\w.]+):(\d+)` \| `(\w+)` \| `([\w.]+)::(\w+)` \| [^|]+ \|")


def test_places_and_tests_exist() -> None:
    lines = (HERE / "PAPERS.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ") and "`" in line][1:]  # without the heading
    assert len(table) >= 20
    for line in table:
        found = ROW.fullmatch(line)
        assert found, f"not a row of the table: {line}"
        file, number, name, test_file, test = found.groups()
        there = (HERE / file).read_text().splitlines()[int(number) - 1]
        assert re.match(rf"(class|def) {name}\b", there), f"{file}:{number} is {there!r}, not {name}"
        assert f"def {test}(" in (Path(__file__).parent / test_file).read_text(), f"no test {test} in {test_file}"
