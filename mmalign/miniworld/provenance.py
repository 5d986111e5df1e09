"""Saving a trained model so that a half-written one is never seen, with a record of how it was made."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def save_atomically(out: Path, write: Callable[[Path], None], provenance: dict[str, Any]) -> None:
    """Write a model folder beside its place, then rename it there, replacing an older one.

    Args:
        out: where the folder shall lie.
        write: called with an empty folder to fill.
        provenance: what to record in ``provenance.json`` besides the command and the commit.
    """
    fresh, old = out.with_name(out.name + ".writing"), out.with_name(out.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    record = {"command": command_line(), "commit": current_commit(), **provenance}
    (fresh / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def command_line() -> str:
    """The command that is running, with the module's name instead of its path."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec else f"mmalign.miniworld.{Path(sys.argv[0]).stem}"
    return " ".join(["python -m", name.removesuffix(".__main__"), *sys.argv[1:]])


def current_commit() -> str | None:
    """The checkout's commit, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
