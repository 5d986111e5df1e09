"""A few damaged run directories; `python -m tests.fuzz.run_directories` tries more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run_directories import case, finished_run

CASES = 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", range(CASES))
def test_every_command_works_or_says_why_not(seed: int, whole: Path, tmp_path: Path) -> None:
    for damaged, command, kind, said in case(seed, whole, tmp_path):
        assert kind != "traceback", f"{damaged}: {command}\n{said}"
        assert kind == "done" or "Error(" not in said.splitlines()[0] or ": " in said, said
