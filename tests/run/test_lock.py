"""Of two trainings in one run directory the second is refused before anything is loaded; a killed one blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.run.lock import locked
from mmalign.run.train import train

RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{short: {{name: length, low: 1, high: 9, unit: characters}}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt}}
trainer: {{steps: {steps}, prompts_per_step: 2, lr: 1.0e-2, save_every: 1, stop_on_idle_steps: 0}}
"""
LONG = 100_000  # steps that nobody waits for


@pytest.fixture
def run_file(tmp_path: Path, lm_folder: Callable[..., Path]) -> Path:
    (tmp_path / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    (tmp_path / "run.yaml").write_text(RUN.format(model=lm_folder("llama"), steps=LONG))
    return tmp_path / "run.yaml"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `mmalign train …` as a process; what still runs at the end is killed."""
    started = []

    def begin(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mmalign", "train", *map(str, words)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def refused(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 2, said
    assert "loading" not in said, said  # neither rewards nor the generator
    return said


def until(so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not so():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def test_a_second_process_is_refused_with_who_has_it_and_goes_on_once_that_was_killed(
    run_file: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    first = start(run_file, "--out", out)
    until((out / "checkpoints" / "step_000001" / "done").exists, first)
    named = rf"{out}: process {first.pid} has been writing here since \d.* UTC; wait until it ends, stop it \(kill"
    with pytest.raises(ConfigError, match=rf"{named} {first.pid}\)\.$"):
        train(load(out / "run.yaml"), resume=out)
    said = refused(start("--resume", out))
    assert f"process {first.pid} has been writing here since" in said

    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (out / "in_use.json").exists()  # it had no time to tidy up
    second = start("--resume", out, f"trainer.steps={LONG + 1}")
    until(lambda: str(second.pid) in (out / "in_use.json").read_text(), second)
    with pytest.raises(ConfigError, match=f"process {second.pid} has been writing here"):
        train(load(out / "run.yaml"), resume=out)


def test_of_two_started_at_once_one_trains(run_file: Path, tmp_path: Path, start: Callable[..., Any]) -> None:
    out = tmp_path / "run"
    both = [start(run_file, "--out", out) for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.05)
    loser = next(process for process in both if process.poll() is not None)
    winner = next(process for process in both if process is not loser)
    said = refused(loser)
    assert f"{out}: process {winner.pid} has been writing here since" in said
    assert f"stop it (kill {winner.pid}), or choose another --out." in said
    until((out / "metrics.jsonl").exists, winner)


def test_twice_in_one_process(run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr("mmalign.run.build.Parts.load", lambda *_, **__: loaded.append(1))
    out = tmp_path / "run"
    holding, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(out):
            holding.set()
            ended.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    try:
        with pytest.raises(ConfigError, match=r"run: this process is already writing here, since .*another --out\.$"):
            train(load(run_file), out=out)
        with pytest.raises(ConfigError, match=r"run: this process is already writing here, since .*until that ends\.$"):
            train(load(run_file), resume=out)
    finally:
        ended.set()
        thread.join()
    assert not loaded and not out.exists()


def test_the_note_of_another_machine_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        note = tmp_path / "run" / "in_use.json"
        for text, said in (
            ('{"pid": 7, "host": "else", "since": "noon"}', "process 7 on else has been writing here since noon; wait"),
            ("", "another process is writing here; wait until it ends, or stop it"),
            ("[]", "another process is writing here; wait until it ends, or stop it"),
        ):
            note.write_text(text)
            with pytest.raises(ConfigError, match=said), locked(tmp_path / "run"):
                pytest.fail(f"{os.getpid()} has it twice")
    assert not (tmp_path / "run").exists()
