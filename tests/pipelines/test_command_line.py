"""Run files and changes may come in any order; too few or too many files are told."""

from pathlib import Path

import pytest

from pipelines._command_line import files_and_changes

ONE, TWO = Path("one.yaml"), Path("two.yaml")


def test_files_and_changes_in_any_order() -> None:
    assert files_and_changes(None, [ONE], []) == ([ONE], ())
    assert files_and_changes(None, [ONE], ["a.b=1", "mine.yaml", "c={d: 2}"]) == (
        [Path("mine.yaml")],
        ("a.b=1", "c={d: 2}"),
    )
    assert files_and_changes(None, [ONE, TWO], ["x", "y"])[0] == [Path("x"), Path("y")]


def test_other_numbers_of_files_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["x"], ["x", "y", "z"]):
        with pytest.raises(SystemExit):
            files_and_changes(None, [ONE, TWO], words)
        assert (
            f"name 2 run file(s), in place of one.yaml two.yaml, or none; found {len(words)}" in capsys.readouterr().err
        )


def test_help_is_the_pipeline_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        files_and_changes("What it does.", [ONE], ["--help"])
    assert stop.value.code == 0 and "What it does." in capsys.readouterr().out
