"""A process that dies ends the job, soon, with a sentence on which and why; what was saved stays whole."""

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

from tests.run.launching import TORCHRUN, slow_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def worker(launcher: int, rank: int) -> int:
    """The process of a rank among the children of a launcher."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise AssertionError("no such process")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("rank", "every"), [(0, 0), (1, 1)], ids=["first, in a step", "second, that evaluates, too"])
def test_a_killed_process_ends_the_job_and_the_run_goes_on(
    rank: int, every: int, tmp_path: Path, lm_folder: Callable[..., Path]
) -> None:
    out = tmp_path / "run"
    trainer = f"steps: 400, lr: 1.0e-3, save_every: 1, evaluate_every: {every}"
    file = slow_run(tmp_path, lm_folder("llama"), trainer)
    allow = ["--allow", "tests.run.slow_judge"]
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "SLOW": "0.2"}
    pipe = subprocess.PIPE
    command = [*TORCHRUN, "-m", "mmalign", "train", str(file), "--out", str(out), *allow]
    job = subprocess.Popen(command, cwd=ROOT, env=whole, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    while not list(out.glob("checkpoints/step_*/done")):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    os.kill(worker(job.pid, rank), signal.SIGKILL)
    begin = time.monotonic()
    output, _ = job.communicate(timeout=120)
    assert time.monotonic() - begin < 60 and job.returncode != 0  # gloo and the launcher notice, no collective waits on
    assert f"rank      : {rank}" in output and "Signal 9 (SIGKILL)" in output
    saved = sorted(int(path.parent.name.removeprefix("step_")) for path in out.glob("checkpoints/step_*/done"))
    code = subprocess.run(
        [sys.executable, "-m", "mmalign", "train", "--resume", str(out), f"trainer.steps={saved[-1] + 1}", *allow],
        cwd=ROOT,
        env=whole,
        capture_output=True,
        text=True,
        check=False,
    )
    assert code.returncode == 0, code.stdout + code.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == list(range(1, saved[-1] + 2))
    assert (out / "report.html").exists()
