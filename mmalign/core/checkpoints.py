"""Which folders of a run are finished checkpoints, and which of them are whole.

checkpoints/step_000100/
  adapter/      what plain diffusers / peft / transformers loads
  state/        what a run continues from
  files.json    every file above with its bytes
  done          the step, written last; a folder without it is not a checkpoint
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from mmalign.core.errors import CheckpointError

log = logging.getLogger("mmalign")
DONE = "done"
FILES = "files.json"
_NAME = re.compile(r"step_(\d{6,})")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder in `checkpoints` in which the checkpoint of `step` lies, whether it is there or not."""
    return checkpoints / f"step_{step:06d}"


def step_of(path: Path) -> int:
    """Return the step after which a checkpoint was written, from its folder's name."""
    return int(path.name.removeprefix("step_"))


def numbered(folder: Path) -> list[Path]:
    """The folders `step_<number>` in `folder`, in order; `step_best` or `step_000003_backup` are somebody's own."""
    if not folder.is_dir():
        return []
    folders = {int(m[1]): p for p in folder.iterdir() if (m := _NAME.fullmatch(p.name)) and p.is_dir()}
    return [path for step, path in sorted(folders.items()) if path == folder_of(folder, step)]


def best_step(run: Path) -> int:
    """Return the step after which the run's best evaluation was made (`evaluation/best`); 0 where it is the start."""
    try:
        return int((run / "evaluation" / "best" / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def step_named(run: Path, name: str) -> int | None:
    """Return the step that `name` means behind RUN@: a number, or "best"; None where it means none.

    Raises:
        CheckpointError: nothing that the run was measured on along the way was better than its start.
    """
    if name == "best" and (run / "run.yaml").is_file():
        if (step := best_step(run)) == 0:
            raise CheckpointError(
                f"{run}@best: no evaluation along the way was better than the start (or none was made: "
                "trainer.evaluate_every, trainer.keep_best)."
            )
        return step
    return int(name) if name.isdecimal() else None


def at_step(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of `step`.

    Raises:
        CheckpointError: there is none; the steps that there are.
    """
    if (path := folder_of(folder, step)).is_dir():
        return path
    steps = ", ".join(str(step_of(other)) for other in complete(folder))
    raise CheckpointError(f"{path}: no such checkpoint; there is {steps or 'none'}.")


def complete(folder: Path) -> list[Path]:
    """List the folders of the checkpoints that were written to their end, oldest first."""
    return [path for path in numbered(folder) if _unfinished(path) is None]


def write_done(path: Path, step: int) -> None:
    """Say that everything is in `path`, which nobody reads yet."""
    sizes = {p.relative_to(path).as_posix(): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}
    (path / FILES).write_text(json.dumps(sizes), encoding="utf-8")
    (path / DONE).write_text(f"{step}\n", encoding="utf-8")


def latest(folder: Path, part: str = "adapter", way: str = "start the run without --resume") -> Path:
    """The newest finished checkpoint whose `part` ("adapter" or "state") is whole; a newer one passed over is said.

    Raises:
        CheckpointError: there is none; damaged and unfinished ones are named with what is wrong, and the `way` out.
    """
    passed: list[str] = []
    for path in reversed(numbered(folder)):
        if (fault := fault_of(path, part)) is None:
            if passed:
                log.warning("%s: taking %s; passed over: %s.", folder, path.name, "; ".join(passed))
            return path
        passed.append(f"{path.name} ({fault})")
    extra = f"; not whole: {'; '.join(passed)}" if passed else ""
    raise CheckpointError(f"{folder}: no complete checkpoint{extra}; {way}.")


def fault_of(path: Path, part: str) -> str | None:
    """Return what is wrong with `part` of a checkpoint, as far as sizes, headers and JSON tell; None if nothing is."""
    if (fault := _unfinished(path)) is not None:
        return fault
    try:
        return next(_faults(path, part), None)
    except Exception as error:  # of a file that is not what its name says, whatever reads it may raise
        return f"{part}/ cannot be read: {error}"


def _unfinished(path: Path) -> str | None:
    try:
        written = (path / DONE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return f"no '{DONE}' file, so it is incomplete"
    except (OSError, ValueError):
        return f"its '{DONE}' file cannot be read"
    if written != str(step_of(path)):
        return f"its '{DONE}' file says {written[:20]!r} instead of {step_of(path)}"
    return None


def _faults(path: Path, part: str) -> Iterator[str]:
    if not (path / part).is_dir():
        yield f"no folder '{part}'"
        return
    if (path / FILES).exists():  # not written by older versions
        sizes: dict[str, int] = json.loads((path / FILES).read_text(encoding="utf-8"))
        for name, size in sizes.items():
            file = path / name
            if name.startswith(f"{part}/") and not file.is_file():
                yield f"{name} is missing"
            elif name.startswith(f"{part}/") and file.stat().st_size != size:
                yield f"{name} has {file.stat().st_size} bytes of {size}"
    for file in sorted((path / part).rglob("*")):
        if (fault := _unreadable(file)) is not None:
            yield f"{file.relative_to(path).as_posix()} {fault}"


def _unreadable(file: Path) -> str | None:
    if file.suffix == ".json":
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"is no JSON: {error}"
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        try:
            with safe_open(file, framework="numpy") as tensors:
                tensors.keys()
        except Exception as error:  # safetensors has its own type
            return f"is damaged: {error}"
    return None
