"""Runs the commands of the tutorials to the letter, in order, in a fresh clone, and prints what each took.

python -m tests.docs.tutorials                     # all of them
python -m tests.docs.tutorials pictures music
python -m tests.docs.tutorials --small             # every command, its trainings of two small steps: is each one right?
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md"))
SMALL = " trainer.steps=2 trainer.prompts_per_step=2 trainer.minibatches=1 trainer.evaluate_every=2 evaluation.count=8"


def commands(tutorial: str) -> list[str]:
    """The lines of a tutorial's bash blocks."""
    text = (ROOT / "docs" / "tutorials" / f"{tutorial}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def smaller(command: str) -> str:
    """A training of two small steps, where the command is one."""
    trains = command.startswith("mmalign train ") and "--dry-run" not in command
    return command + SMALL if trains else command


def run(tutorial: str, folder: Path, small: bool = False) -> bool:
    """Run a tutorial's commands in `folder`, a checkout; prints each with its seconds. Did all succeed?"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands(tutorial):
        start = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", smaller(command) if small else command],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},  # the clone's code, by this environment
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{tutorial}: {time.perf_counter() - start:6.1f} s  exit {done.returncode}  {command}", flush=True)
        if done.returncode:
            print(done.stdout[-2000:] + done.stderr[-2000:])
            return False
    return True


def cloned(place: Path) -> Path:
    """A fresh clone of this checkout's last commit."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(place / "mmalign")], check=True)
    return place / "mmalign"


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if not word.startswith("--")]
    with tempfile.TemporaryDirectory() as folder:
        checkout = cloned(Path(folder))
        results = [run(name, checkout, "--small" in sys.argv) for name in names or TUTORIALS]
    sys.exit(0 if all(results) else 1)
