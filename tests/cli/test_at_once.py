"""Every long command says that it works before it begins to import what takes seconds, and then how far it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign.cli._progress import progress
from mmalign.core.pace import starting

ROOT = Path(__file__).parents[2]
# The first heavy import of a process says so, and ends it: what stood on standard error before was said in time.
MARKER = """
import importlib.abc, importlib.machinery, sys
class Marked(importlib.abc.Loader):
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        print("importing", module.__name__, file=sys.stderr, flush=True)
        raise SystemExit(7)
class Heavy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "scipy", "transformers"):
            return importlib.machinery.ModuleSpec(name, Marked(), is_package=True)
sys.meta_path.insert(0, Heavy())
"""
COMMANDS = {
    "train": "mmalign train quickstart/image",
    "dry run": "mmalign train quickstart/image --dry-run",
    "evaluate": "mmalign evaluate quickstart/image",
    "score": "mmalign score rows.jsonl --reward sharpness",
    "judge": "mmalign judge rows.jsonl --reward sharpness",
    "annotate": "mmalign annotate rows.jsonl --with ranks --out out.jsonl",
    "features": "mmalign features rows.jsonl --with clip",
    "auroc": "mmalign auroc rows.jsonl rows.jsonl --reward sharpness",
    "frontier": "mmalign frontier .",
    "serve": "mmalign serve sharpness",
    "reference": "mmalign reference exemplars.txt --out out.safetensors --encoder clip",
    "convert": "mmalign convert weights.pt out.safetensors",
    "quickstart": "mmalign quickstart --out out",
    "demo": "mmalign demo .",
    "doctor": "mmalign doctor --deep",
    "scenes": "mmalign miniworld make scenes out",
    "tunes": "mmalign miniworld make tunes out",
    "comparisons": "mmalign miniworld make comparisons out.jsonl",
    "statistics": "mmalign miniworld reference --out out.safetensors",
    "retrain": "pipelines.miniworld clip",
    **{
        name: f"pipelines.{name}"
        for name in sorted(file.stem for file in (ROOT / "pipelines").glob("[a-z]*.py"))
        if name != "music"
    },
    "music": "pipelines.music frechet",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_long_command_says_at_once_that_it_works(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MARKER)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "output": "b"}\n')
    (tmp_path / "exemplars.txt").write_text("a\nb\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    environment.pop("RANK", None)
    command = [sys.executable, "-m", *COMMANDS[name].split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 7 and lines[-1].startswith("importing "), done.stderr
    assert any(line.endswith(" …") for line in lines[:-1]), done.stderr


def test_of_several_processes_the_first_says_it(monkeypatch, capsys):
    for rank, told in (("0", "checking …\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        starting("checking")
        assert capsys.readouterr() == ("", told)


def test_where_no_terminal_is_lines_say_how_far_it_is(monkeypatch, capsys):
    seconds = iter([0.0, 14.0, 20.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    with progress("scoring", "scored") as advance:
        for done in (1, 2, 3, 4):
            advance(done, 4)
    assert capsys.readouterr() == ("", "scored 2 of 4\n")
