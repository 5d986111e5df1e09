"""Two processes, started as people start them: what they write, how they wait, how they are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.run.launching import TORCHRUN, slow_run

pytestmark = pytest.mark.timeout(900)  # each starts Python several times
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_file(tmp_path: Path, lm_folder: Callable[..., Path]) -> Path:
    return slow_run(tmp_path, lm_folder("llama"), "steps: 3, lr: 1.0e-2")


def start(words: list[str], launcher: list[str], module: str = "mmalign", **environment: str) -> subprocess.Popen[str]:
    command = [*launcher, "-m", module, *words, "--allow", "tests.run.slow_judge"]
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=whole, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=500)
    return process.returncode, said


def lines(run: Path) -> list[dict[str, float]]:
    """The lines of steps; those of what follows a step have no learning rate."""
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "lr" in line]


def weights(run: Path, step: int = 3) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "state" / "weights.safetensors")


def test_two_on_a_machine_without_a_gpu_are_two_and_wait_for_a_slow_judge(run_file: Path, tmp_path: Path) -> None:
    """Rank 1 sleeps through more than what collectives wait for: before the first step, in it, and at the end."""
    words = ["train", str(run_file), "trainer.steps=1", "--out"]
    slow = {"SLOW": "4", "SLOW_RANK": "1"}
    code, said = ended(start([*words, str(tmp_path / "two")], TORCHRUN, "tests.run.impatient", **slow))
    assert code == 0, said
    assert "training in 2 processes (cpu, 1 threads each)" in said
    assert said.count("step 1/1") == 1  # one of them writes
    code, said = ended(start([*words, str(tmp_path / "one")], [sys.executable]))
    assert code == 0 and "training in 1 process (cpu, 1 threads)" in said
    one, other = ((tmp_path / name / "evaluation/before/rows.jsonl").read_text() for name in ("one", "two"))
    assert one == other  # though each made half of it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_stops_both_after_the_step_and_they_go_on_exactly(
    run_file: Path, tmp_path: Path, number: int
) -> None:
    words = ["train", str(run_file), "--out"]
    code, said = ended(start([*words, str(tmp_path / "whole")], TORCHRUN))
    assert code == 0, said
    called, half = tmp_path / "called", tmp_path / "half"
    passing = [*TORCHRUN, "--signals-to-handle", "SIGTERM,SIGUSR1"]
    process = start([*words, str(half)], passing, SLOW="0.5", CALLED=str(called))
    while not (half / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(number)
    code, said = ended(process)
    assert code != 0
    assert said.count("stopping when this step is done, with a checkpoint") == 1, said
    assert f"stopped; `mmalign train --resume {half}" in said
    code, said = ended(start(["train", "--resume", str(half)], TORCHRUN))
    assert code == 0, said
    one, two = weights(tmp_path / "whole"), weights(half)
    assert all(torch.equal(one[name], two[name]) for name in one)
    untimed = [
        [{k: v for k, v in line.items() if "time" not in k and "seconds" not in k} for line in lines(run)]
        for run in (tmp_path / "whole", half)
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_one_process_ends_with_its_signal_s_code(run_file: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    process = start(["train", str(run_file), "--out", str(out)], [sys.executable], SLOW="0.2")
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(number)
    code, said = ended(process)
    assert code == 128 + number, said
    assert f"stopped; `mmalign train --resume {out}" in said and "Traceback" not in said
    steps = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert steps and len(lines(out)) == int(steps[-1].removeprefix("step_"))


def test_a_signal_while_the_start_is_measured_ends_with_a_sentence(run_file: Path, tmp_path: Path) -> None:
    called = tmp_path / "called"
    process = start(
        ["train", str(run_file), "--out", str(tmp_path / "run")], [sys.executable], SLOW="30", CALLED=str(called)
    )
    while not called.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 143 and "stopped before the first checkpoint; the same command starts again" in said, said
    assert "Traceback" not in said
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_reader_who_leaves_does_not_end_the_training(run_file: Path, tmp_path: Path) -> None:
    process = start(["train", str(run_file), "--out", str(tmp_path / "run")], [sys.executable])
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=300)
    assert len(lines(tmp_path / "run")) == 3 and (tmp_path / "run" / "report.html").exists()


def test_an_environment_of_which_accelerate_makes_something_else_is_refused(run_file: Path, tmp_path: Path) -> None:
    words = ["train", str(run_file), "--out", str(tmp_path / "run")]
    code, said = ended(start(words, [sys.executable], WORLD_SIZE="2", RANK="0"))
    assert code == 2, said
    assert (
        "launch: the environment speaks of process 0 of 2 (WORLD_SIZE, RANK), but accelerate made process 0 of 1"
        in said
    )
    assert not (tmp_path / "run").exists()
