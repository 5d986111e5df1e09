"""The package of docs/plugins.md, made from the page, installed, checked and trained in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import named_blocks


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page's files, and beside it what installing the package leaves: its metadata."""
    folder = tmp_path_factory.mktemp("lamps")
    for name, text in named_blocks("plugins.md").items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "mmalign_lamps" / "__init__.py").write_text('"""Lamps."""\n')
    (folder / "prompts.txt").write_text("a lamp\na dark cave\nsnow\na fire at night\n")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / "mmalign_lamps-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    (metadata / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in groups)
    )
    return folder


def run(lamps: Path, *command: str) -> str:
    """What a command prints, with the package on the path."""
    environment = {**os.environ, "PYTHONPATH": str(lamps), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=lamps, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_passes_its_own_tests(lamps: Path) -> None:
    assert "2 passed" in run(lamps, "pytest", "-q", "-p", "no:cacheprovider", "tests/test_lamps.py")


def test_it_is_listed_with_its_origin(lamps: Path) -> None:
    assert "How warm the light of a picture is: red minus blue. [mmalign-lamps 0.1]" in run(
        lamps, "mmalign", "list", "rewards"
    )


@pytest.mark.slow
def test_its_run_file_trains_and_the_reward_rises(lamps: Path) -> None:
    run(lamps, "mmalign", "train", "lamps.yaml", "--out", "run", "evaluation.count=4", "trainer.seed=1")
    lines = [json.loads(line) for line in (lamps / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = [line["reward/warmth"] for line in lines if "reward/warmth" in line]
    assert len(curve) == 20
    first, last = sum(curve[:5]) / 5, sum(curve[-5:]) / 5
    assert last > first + 0.05
