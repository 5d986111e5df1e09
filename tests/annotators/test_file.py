"""A file annotated: whole or not at all, resumed where it stopped, with counts of what was skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmalign.annotators import annotators
from mmalign.annotators._file import annotate_file
from mmalign.annotators._rows import Row
from mmalign.cli.main import application
from mmalign.core.errors import ConfigError, DataError

ROWS = [{"prompt": f"p{i}", "ranked": ["a", "b", "c"][: 1 + i % 3]} for i in range(9)]


class Stopping:
    """An annotator that is stopped by hand after so many batches."""

    def __init__(self, after: int) -> None:
        self.inner, self.after, self.seen = annotators.build({"name": "ranks"}, "ranks"), after, 0

    def __call__(self, rows: Sequence[Row]) -> Any:
        if self.seen == self.after:
            raise KeyboardInterrupt
        self.seen += 1
        return self.inner(rows)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_stopped_run_goes_on_to_the_same_file(rows: Path, tmp_path: Path) -> None:
    spec = [{"name": "ranks"}]
    whole = annotate_file(rows, tmp_path / "whole.jsonl", [("ranks", Stopping(9))], spec, batch=2)
    assert (whole.read, whole.written, whole.resumed) == (9, 12, 0)
    assert whole.skipped == {"ranks: 'ranked' holds fewer than two different texts": 3}
    out = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate_file(rows, out, [("ranks", Stopping(3))], spec, batch=2)
    assert not out.exists()
    journal = tmp_path / "part.jsonl.journal"
    journal.write_text(journal.read_text() + '{"rows": [{"cut')  # the machine went off in the middle of a line
    second = Stopping(9)
    again = annotate_file(rows, out, [("ranks", second)], spec, batch=2)
    assert second.seen == 2 and again.resumed == 6 and not journal.exists()
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and again.skipped == whole.skipped


def test_other_work_begins_anew(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate_file(rows, out, [("ranks", Stopping(2))], [{"name": "ranks"}], batch=2)
    assert (
        annotate_file(rows, out, [("ranks", Stopping(9))], [{"name": "ranks", "pairs": "next"}], batch=2).resumed == 0
    )
    with pytest.raises(KeyboardInterrupt):
        annotate_file(rows, out, [("ranks", Stopping(2))], [{"name": "ranks"}], batch=2)
    rows.write_text(json.dumps(ROWS[2]) + "\n")
    assert annotate_file(rows, out, [("ranks", Stopping(9))], [{"name": "ranks"}], batch=2).read == 1


def test_faults_of_files(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is what is annotated and would be lost"):
        annotate_file(rows, rows, [], [])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\n[1]\nnothing\n')
    with pytest.raises(DataError) as faults:
        annotate_file(bad, tmp_path / "out.jsonl", [], [])
    assert "bad.jsonl:2: is no object" in str(faults.value) and "bad.jsonl:3: is no JSON" in str(faults.value)


def test_the_command_chains_annotators(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["annotate", str(rows), "--with", "ranks", "--with", "goal", "--out", str(out)]
    words += ["--set", "ranks.pairs=next", "--set", "goal.goals=[bad, good]", "--set", "goal.edges=[0.1]"]
    result = CliRunner().invoke(application(), [*words, "--set", "goal.reward={name: length, low: 3}"])
    assert result.exit_code == 0, result.output
    assert "9 rows of 9 read" in result.output and "3 skipped by ranks" in result.output
    assert {row["prompt"].split()[0] for row in map(json.loads, out.read_text().splitlines())} == {"good"}
    strange = CliRunner().invoke(application(), [*words, "--set", "pairs=next"])
    assert isinstance(strange.exception, ConfigError) and "has its annotator's name before it" in str(strange.exception)
    unknown = CliRunner().invoke(application(), ["annotate", str(rows), "--with", "rank", "--out", str(out)])
    assert isinstance(unknown.exception, ConfigError) and "Did you mean 'ranks'" in str(unknown.exception)
