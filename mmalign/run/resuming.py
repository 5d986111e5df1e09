"""Where a run goes on: its directory, the checkpoint that it continues, and how to say it to people."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from mmalign.core.checkpoints import at_step, fault_of, step_named
from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.run.directory import RunDirectory
from mmalign.training import checkpoint


def refuse_both(out: Path | str | None, resume: Path | str | None) -> None:
    """Raise ConfigError if a run is to go on and to be written elsewhere."""
    if out is not None and resume is not None:
        raise ConfigError(f"--out {out}: a resumed run goes on in its own folder, {resume}; leave --out away.")


def resume_point(resume: Path | str) -> tuple[Path, int | None]:
    """Return the run directory and, of "directory@step" or "directory@best", the step."""
    place, at, name = str(resume).rpartition("@")
    if at and not Path(resume).is_dir() and (step := step_named(Path(place), name)) is not None:
        return Path(place), step
    return Path(resume), None


def checkpoint_of(directory: RunDirectory, step: int | None, part: str = "state") -> Path:
    """Return the checkpoint of `step`, or the newest one whose `part` ("state" or "adapter") is whole.

    Raises:
        CheckpointError: there is none; the steps that there are.
    """
    if step is None:
        return checkpoint.latest(directory.checkpoints, part)
    path = at_step(directory.checkpoints, step)
    if (fault := fault_of(path, part)) is not None:
        raise CheckpointError(f"{path}: is not whole ({fault}); name another step.")
    return path


def check_unfinished(directory: RunDirectory, step: int, steps: int, measured: bool) -> None:
    """Can the run go on, or has it a report to write? Said before anything is loaded.

    Raises:
        ConfigError: it has taken all its steps and told of them.
    """
    if step > steps or (step == steps and directory.is_finished(step, measured)):
        raise ConfigError(f"{directory.path}: already at step {step} of {steps}; raise trainer.steps.")


def resuming(folder: Path, allow: Collection[str], own: bool) -> str:
    """How a run goes on; one with judges or hooks of its `own` by the program that has them."""
    place = shlex.quote(str(folder))
    if own:
        return f"the same program with resume={str(folder)!r} (a recipe: `--resume {place}`)"
    return f"`mmalign train --resume {place}{''.join(f' --allow {shlex.quote(module)}' for module in allow)}`"


def left(directory: RunDirectory, steps: int, way: str) -> str:
    """Return what a run of so many steps that was stopped has left, and the `way` that goes on from there."""
    if not (checkpoints := checkpoint.complete(directory.checkpoints)):
        place = shlex.quote(str(directory.path))
        return f"stopped before the first checkpoint; the same command starts again in {place}."
    if (step := checkpoint.step_of(checkpoints[-1])) < steps:
        return f"stopped; {way} goes on after step {step} of {steps}."
    return f"stopped after the last step; {way} measures and reports what was learned."
