"""A few runs stopped at random moments; `python -m tests.fuzz.signals` tries more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 6


@pytest.mark.timeout(900)
def test_stopped_runs_go_on_to_the_weights_of_an_undisturbed_one() -> None:
    command = [sys.executable, "-m", "tests.fuzz.signals", "--cases", str(CASES)]
    bare = {**os.environ, "OMP_NUM_THREADS": "1"}  # a process that forks has no threads
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"'equal': {CASES}" in done.stdout
