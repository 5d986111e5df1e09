"""One process or two: the same gradient and the same way on, through accelerate's own wrapping."""

import re
import subprocess
import sys
from pathlib import Path


def test_two_processes_give_the_gradient_of_one_and_resume(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.training.two_processes", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    worst = re.search(r"worst (\S+)", done.stdout)
    assert worst and float(worst[1]) <= 1e-5, done.stdout
