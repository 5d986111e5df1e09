"""Long files scored part by part: the same lines, no row twice, whoever is killed and however many share them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmalign.cli.main import application
from mmalign.run import score_parts
from tests.run.launching import TORCHRUN

ROOT = Path(__file__).resolve().parents[2]
ALLOW = ["--allow", "tests.run.counting_reward"]
COUNTING = ["--reward", "tests.run.counting_reward:Counting"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": "say", "output": f"row {i}"}) + "\n\n" for i in range(700)))
    return file


def started(rows: Path, out: Path, *more: str, launcher: Sequence[str] = (sys.executable,), **environment: str) -> Any:
    command = [*launcher, "-m", "mmalign", "score", str(rows), "--out", str(out), *COUNTING, *ALLOW]
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COUNTED": str(out) + ".counted"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *more], cwd=ROOT, env=whole | environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: Any) -> tuple[int, str]:
    out, err = process.communicate(timeout=250)
    return process.returncode, out + err


def counted(out: Path) -> Counter[str]:
    return Counter(Path(f"{out}.counted").read_text().splitlines())


def values(out: Path) -> list[float]:
    return [json.loads(line)["value"] for line in out.read_text().splitlines()]


WANTED = pytest.approx([len(f"row {i}") / 10 for i in range(700)])


def test_a_killed_scoring_goes_on_and_scores_no_finished_part_twice(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    slow = started(rows, out, "--set", "delay=0.3")
    parts = tmp_path / "scores.jsonl.parts"
    while not list(parts.glob("0*.jsonl")):
        assert slow.poll() is None, ended(slow)
        time.sleep(0.05)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    assert not out.exists()
    code, said = ended(started(rows, out, "--set", "delay=0"))
    assert code == 2 and "holds parts of another scoring (another options); remove the folder" in said
    there = len(list(parts.glob("0*.jsonl")))
    code, said = ended(started(rows, out, "--set", "delay=0.3"))
    assert code == 0 and f"note: {there} of 3 parts were scored before; going on with the others." in said
    assert values(out) == WANTED and not parts.exists()
    twice = [row for row, count in counted(out).items() if count > 1]
    assert len(counted(out)) == 700 and len(twice) <= score_parts.ROWS
    assert f"row {0}" not in twice  # of the part that was there


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_a_file(processes: int, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    code, said = ended(started(rows, out, launcher=TORCHRUN if processes > 1 else [sys.executable]))
    assert code == 0, said
    assert values(out) == WANTED and set(counted(out).values()) == {1} and len(counted(out)) == 700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "scores.jsonl", "scores.jsonl.counted"]


def test_what_processes_cannot_share_is_refused(rows: Path, tmp_path: Path) -> None:
    together = ("--set", "batch_dependent=true")
    code, said = ended(started(rows, tmp_path / "a.jsonl", *together, WORLD_SIZE="2", RANK="0"))
    assert code == 2 and "what it says of a row hangs on the others, so that processes cannot share the file" in said


def test_lines_are_those_of_one_call(tmp_path: Path) -> None:
    """Parts of a score that only some rows have, rows without a value, notes: all as where nothing was cut."""
    rows, out = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    some = [{"prompt": "a", "output": "word " * (i % 7), "meta": {"limit": 3} if i % 2 else None} for i in range(600)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in some))
    words = ["score", str(rows), "--reward", "length", "--set", "high=20"]
    assert CliRunner().invoke(application(), [*words, "--out", str(out)]).exit_code == 0
    assert out.read_text() == CliRunner().invoke(application(), words).stdout
