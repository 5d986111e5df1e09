"""`mmalign serve`: what it refuses before it loads anything, and a server that starts, scores and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmalign.cli.main import application
from tests.run.serving.in_thread import asked, texts

ROOT = Path(__file__).parents[2]


def refused(*words: str) -> str:
    result = CliRunner().invoke(application(), ["serve", *words])
    assert result.exit_code == 1, result.output
    return str(result.exception)


def test_what_it_needs_a_token_for_and_what_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "secret")
    monkeypatch.setenv("UMLAUT", "ü" * 20)
    (tmp_path / "token").write_text("x" * 20 + "\n")
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        assert "name a token by --token-file or --token-env" in refused("length", "--host", host)
    assert "holds 6 characters; a token has 16 or more" in refused("length", "--token-env", "SHORT")
    assert "all ASCII" in refused("length", "--token-env", "UMLAUT")
    assert "has no such variable" in refused("length", "--token-env", "NO_SUCH_VARIABLE")
    assert "name one of them" in refused("length", "--token-env", "SHORT", "--token-file", str(tmp_path / "token"))
    taken = refused("length", "--host", "203.0.113.1", "--token-file", str(tmp_path / "token"))
    assert "cannot listen there" in taken


def test_which_rewards_it_does_not_serve() -> None:
    assert "Did you mean 'length'" in refused("lenght")
    assert "'sharpness' is named twice" in refused("sharpness", "sharpness")
    assert "scores sets, which must be in the run's own process" in refused(
        "vendi", "--set", "encoder=assets/scenes_clip"
    )
    clip = "assets/scenes_clip"
    options = ("--set", "inner.name=clip", "--set", f"inner.checkpoint={clip}", "--set", f"encoder={clip}")
    assert "learns from the run that it scores" in refused("budgeted", *options)
    assert "the policy's own features" in refused("embedding_contrast")
    both = refused("sharpness", "lenght", "--set", "sharpness.nothing=1")
    assert "nothing" in both and "lenght" in both


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_scores_and_ends(ending: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "output": "yes", "meta": {"answer": "yes"}}\n')
    (tmp_path / "token").write_text("a-token-of-many-letters\n")
    words = [
        "exact_match",
        "long=length",
        "--set",
        "long.high=8",
        "--port",
        "0",
        "--probe",
        str(tmp_path / "rows.jsonl"),
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "mmalign", "serve", *words, "--token-file", str(tmp_path / "token")],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert server.stdout and server.stderr
    try:
        said = [server.stdout.readline() for _ in range(3)]
        assert said[0].startswith("exact_match: a row to try it: ok in "), (said, server.stderr.read())
        url = re.match(r"(http://127\.0\.0\.1:\d+) scores by exact_match, long, with the token alone", said[2])
        assert url, said
        key = {"authorization": "Bearer a-token-of-many-letters"}
        status, health = asked(url[1], "GET", "/health", **key)
        assert status == 200 and health["rewards"]["exact_match"]["value"] == 1.0
        status, answer = asked(url[1], "POST", "/score", texts("four", reward="long"), **key)
        assert status == 200 and answer["status"] == ["ok"]
        assert asked(url[1], "GET", "/spec")[0] == 401
        server.send_signal(ending)
        start = time.monotonic()
        assert server.wait(60) == 128 + ending
        assert time.monotonic() - start < 30
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
