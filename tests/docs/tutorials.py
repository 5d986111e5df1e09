"""Runs the commands of the tutorials to the letter, in order, and prints what each took.

python -m tests.docs.tutorials                     # all of them, in a fresh folder beside assets/ and configs/
python -m tests.docs.tutorials pictures music
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


def commands(tutorial: str) -> list[str]:
    """The lines of a tutorial's bash blocks."""
    text = (ROOT / "docs" / "tutorials" / f"{tutorial}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(tutorial: str, folder: Path) -> bool:
    """Run a tutorial's commands in `folder`; prints each with its seconds. Did all succeed?"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands(tutorial):
        start = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{tutorial}: {time.perf_counter() - start:6.1f} s  exit {done.returncode}  {command}", flush=True)
        if done.returncode:
            print(done.stdout[-2000:] + done.stderr[-2000:])
            return False
    return True


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name in ("assets", "configs"):
            (Path(place) / name).symlink_to(ROOT / name)
        results = [run(name, Path(place)) for name in sys.argv[1:] or TUTORIALS]
    sys.exit(0 if all(results) else 1)
