"""How far a run is: does it go on, which step, how long it will take."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmalign.evaluation.run_record import RunRecord

__all__ = ["Progress", "in_words", "progress_of"]

RECENT = 20  # steps whose median is the time of a step
NOTE = "in_use.json"  # who writes in a run directory, see `run/lock.py`


@dataclass(frozen=True)
class Progress:
    """`state`: a process writes there, or it ended as it should, or it was ended before.

    `left` are seconds until its report, as far as the steps and evaluations so far tell; None where none did.
    """

    state: Literal["running", "finished", "stopped"]
    step: int
    steps: int
    left: float | None = None
    step_seconds: float | None = None

    @property
    def sentence(self) -> str:
        """What it is, for people."""
        of = f"step {self.step:,} of {self.steps:,}" if self.steps else f"step {self.step:,}"
        if self.state == "running":
            left = "" if self.left is None else f", about {in_words(self.left)} left"
            return f"Running: {of}{left}."
        if self.state == "finished":
            return f"Finished after {self.step:,} step{'' if self.step == 1 else 's'}."
        return f"Not running: it ended at {of}, before its last evaluation."


def progress_of(record: RunRecord) -> Progress:
    """Return how far the run of a directory is."""
    step = int(record.metrics[-1]["step"]) if record.metrics else 0
    trainer = record.run.get("trainer") or {}
    steps = _whole(trainer.get("steps"))
    each = _seconds_of_steps(record)
    summed_up = bool(record.summary) and 0 < steps <= step  # a run still holds its folder while it writes its report
    if not summed_up and _held(record.path):
        return Progress("running", step, steps, _left(record, each, steps, step), each)
    finished = "finished" in record.environment or bool(record.summary)
    return Progress("finished" if finished else "stopped", step, steps, None, each)


def in_words(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60:.0f} s" if minutes else f"{seconds:.1f} s"


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _seconds_of_steps(record: RunRecord) -> float | None:
    """The median step, without what happens at some steps only (previews, evaluations, checkpoints)."""
    aside = ("time/preview", "time/evaluate", "time/save")
    sums = [
        sum(value for name, value in line.items() if name.startswith("time/") and name not in aside)
        for line in record.metrics[-RECENT:]
    ]
    return statistics.median(sums) if any(sums) else None


def _left(record: RunRecord, each: float | None, steps: int, step: int) -> float | None:
    if each is None or not steps:
        return None
    every = _whole((record.run.get("trainer") or {}).get("evaluate_every"))
    evaluations = (steps // every - step // every if every else 0) + 1
    once = record.before.seconds if record.before is not None else 0.0
    return (steps - step) * each + evaluations * once


def _held(folder: Path) -> bool:
    """Does a process write here? One that was killed may have left its note; on another machine that is believed."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        pid, host = int(note["pid"]), str(note["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if host != platform.node():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True
