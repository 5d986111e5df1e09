"""The wheel works alone and is small, and the source distribution holds what it leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 3_000_000  # bytes of the wheel
ABSENT = "The embedded models come with the repository and the source distribution, not with the wheel"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as an installer would."""
    pytest.importorskip("hatchling", reason="skipped: needs the extra dev")
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as file:
        file.extractall(place / "site")
    return place / "site"


def test_the_wheel_holds_what_the_code_reads(installed: Path) -> None:
    package = ROOT / "mmalign"
    data = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert [str(path) for path in sorted(data) if not (installed / "mmalign" / path).is_file()] == []
    for folder, inside in (("configs", "_configs"), ("assets/prompts", "_assets/prompts")):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files and all((installed / "mmalign" / inside / file).is_file() for file in files)
    assert not list(installed.rglob("*.safetensors"))


def test_the_source_distribution_holds_the_rest() -> None:
    sdist = pytest.importorskip("hatchling.builders.sdist", reason="skipped: needs the extra dev")
    there = {file.distribution_path for file in sdist.SdistBuilder(str(ROOT)).recurse_project_files()}
    models = [path.relative_to(ROOT).as_posix() for path in (ROOT / "assets").rglob("*.safetensors")]
    assert models and set(models) <= there
    assert {"README.md", "LICENSE", "CHANGELOG.md", "hatch_build.py", "tests/test_packages.py"} <= there


@pytest.mark.slow
def test_the_wheel_alone_lists_shows_and_says_where_models_are(installed: Path, tmp_path: Path) -> None:
    def said(*words: str, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "MMALIGN_ASSETS"}
        environment |= {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        command = [sys.executable, "-P", "-m", "mmalign", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "quickstart/image" in said("list", "configs") and "group_size" in said("show", "objective/grpo")
    said("miniworld", "make", "scenes", "drawn", "--count", "3")
    assert len((tmp_path / "drawn" / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    found = said("train", "quickstart/image", "--dry-run", code=2)
    assert f"adapter.model: assets/scenes_sd3: no such folder. {ABSENT}" in found and "hf download assets/" not in found
    assert ABSENT in said(
        "score", "drawn/rows.jsonl", "--reward", "clip", "--set", "checkpoint=assets/scenes_clip", code=2
    )
