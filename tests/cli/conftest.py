"""The command line as people type it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from mmalign.cli.main import main


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`call(*words)`: exit code, standard output and standard error of `mmalign words…`."""

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmalign", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
