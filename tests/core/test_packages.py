"""Packages that do not match are a sentence; one that the task can do without is left out, and said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign.core import packages
from mmalign.core.errors import PackageError

BROKEN = "raise OSError('Could not load this library: libtorchaudio.so')\n"


def fake(folder: Path, name: str, version: str, code: str | None = None) -> None:
    """A distribution `name` in `folder`, found before the installed one; its module runs `code`."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if code is not None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=250, check=False
    )


def test_what_is_installed_here_matches() -> None:
    assert packages.mismatches() == {}
    packages.require_matching()
    assert packages.outside_ranges() == []


@pytest.mark.parametrize(
    ("versions", "broken"),
    [
        ({"torchaudio": "2.11.1", "torch": "2.11.0", "torchvision": "0"}, {"torchaudio"}),
        ({"torchaudio": "2.11.1", "torch": "2.12.1", "torchvision": "0"}, {"torchaudio"}),
        ({"torchaudio": "2.11.1", "torch": "2.13.0", "torchvision": "0"}, set()),
        ({"torchaudio": "2.11.0+cu130", "torch": "2.15.0+cu132", "torchvision": "0"}, {"torchaudio"}),
        ({"torchaudio": "2.11.0", "torch": "2.14.1", "torchvision": "0"}, set()),
        ({"pyarrow": "26.0.1", "numpy": "1.26.4"}, {"pyarrow"}),
        ({"pyarrow": "25.0.1", "numpy": "1.26.4"}, set()),
        ({"pyarrow": "26.0.1", "numpy": "2.4.6"}, set()),
        ({"torchvision": "0.29.2", "torch": "2.14.1", "torchaudio": "2.11.1"}, {"torchvision"}),
    ],
)
def test_pairs_that_do_not_load_together(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], broken: set[str]
) -> None:
    monkeypatch.setattr(packages, "installed", versions.get)
    beside = "2.15.0" if versions.get("torchvision") == "0.29.2" else versions.get("torch", "").partition("+")[0]
    pins = {"torchvision": [f"torch=={beside}"]}
    monkeypatch.setattr(packages, "requires", lambda name: pins.get(name, ["torch<3,>=2.13", "torchaudio<3,>=2.11.1"]))
    found = packages.mismatches()
    assert set(found) == broken
    for name, sentence in found.items():
        assert versions[name] in sentence and "pip install" in sentence and "\n" not in sentence


def test_torchvision_beside_another_torch_is_refused(tmp_path: Path) -> None:
    fake(tmp_path, "torch", "2.9.9")
    done = run(tmp_path, "from mmalign import load_reward; load_reward('sharpness')")
    assert "PackageError" in done.stderr and "torchvision" in done.stderr and "beside torch 2.9.9" in done.stderr


@pytest.mark.slow
def test_a_picture_is_made_beside_a_torchaudio_that_does_not_load(tmp_path: Path) -> None:
    fake(tmp_path, "torchaudio", "2.11.1", BROKEN)
    code = (
        "import transformers; from transformers.utils import is_torchaudio_available\n"
        "from mmalign import load_adapter\n"
        "adapter = load_adapter('sd3', model='assets/scenes_sd3'); adapter.load()\n"
        "print(is_torchaudio_available(), type(adapter).__name__)"
    )
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "False"
    assert "left out, only sounds need it: torchaudio 2.11.1 does not load (OSError" in done.stderr


@pytest.mark.slow
def test_a_sound_beside_it_is_a_sentence(tmp_path: Path) -> None:
    fake(tmp_path, "torchaudio", "2.11.1", BROKEN)
    code = (
        "import torch; from mmalign.core.errors import PackageError; from mmalign.media.loudness import lufs\n"
        "try: lufs(torch.zeros(1, 16000), 16000)\n"
        "except PackageError as error: print(error)"
    )
    assert "torchaudio 2.11.1 does not load: OSError: Could not load" in run(tmp_path, code).stdout


def test_needed_and_not_there_says_how_to_install() -> None:
    with pytest.raises(PackageError, match="nosuch is needed and not installed: pip install 'nosuch'"):
        packages.need("nosuch.functional")


def test_extras_are_read_from_the_metadata() -> None:
    found = packages.extras()
    named = {"audio", "caption", "demo", "track", *(["laion"] if sys.version_info < (3, 13) else [])}
    assert named <= set(found) and not {"all", "dev"} & set(found)
    assert found["caption"] == []
