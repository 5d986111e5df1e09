"""Lines of Python, run as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmalign
from tests.run.conftest import run_file, tiny_model  # noqa: F401  (fixtures)


def executed(lines: str, folder: Path, then: str = "") -> None:
    """Run Python lines in a process of their own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(mmalign.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}\n{then}"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
