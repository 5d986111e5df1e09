"""A run keeps the command that was typed, whatever program it was."""

import sys
from types import SimpleNamespace

import pytest

from mmalign.run.command import command


@pytest.mark.parametrize(
    ("spec", "words", "told"),
    [
        (None, ["/venv/bin/mmalign", "train", "my run.yaml"], "mmalign train 'my run.yaml'"),
        ("mmalign.__main__", ["/src/mmalign/__main__.py", "quickstart"], "mmalign quickstart"),
        ("pipelines.music", ["/src/pipelines/music.py", "jig/"], "python -m pipelines.music jig/"),
        (None, ["mine/align.py", "--fast"], "python mine/align.py --fast"),
        ("ipykernel_launcher", ["/lib/ipykernel_launcher.py", "-f", "x.json"], ""),
        (None, ["-c"], ""),
        (None, [""], ""),
    ],
)
def test_what_was_typed(spec: str | None, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = None if spec is None else SimpleNamespace(name=spec)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=found))
    monkeypatch.setattr("sys.argv", words)
    assert command() == told
