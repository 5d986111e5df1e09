"""Where the evaluations of a run directory lie."""

from __future__ import annotations

from pathlib import Path

from mmalign.core.errors import DataError

__all__ = ["evaluation_folders", "require_run", "run_above"]


def evaluation_folders(run: Path) -> list[Path]:
    """Return the run's own final evaluation, then what `mmalign evaluate` measured later, newest first.

    Raises:
        DataError: `run` holds none, or is none itself.
    """
    later = sorted((run / "evaluated").glob("*-*"), key=_number, reverse=True)
    places = [run, run / "evaluation" / "after", run / "evaluation", *(path / "evaluation" / "after" for path in later)]
    if folders := [folder for folder in places if (folder / "evaluation.json").exists()]:
        return folders
    if not run.is_dir():
        raise DataError(f"{run}: no such run directory.")
    raise DataError(
        f"{run}: holds no evaluation; looked for evaluation.json in it, in evaluation/after and in evaluated/. "
        "`mmalign evaluate` makes one."
    )


def run_above(folder: Path) -> Path | None:
    """The nearest folder at or above an evaluation's that has a `run.yaml`: what the evaluation was made by."""
    return next((place for place in (folder, *folder.parents[:3]) if (place / "run.yaml").is_file()), None)


def require_run(run: Path) -> None:
    """Raise DataError unless `run` is a directory that `mmalign train` wrote."""
    if not run.is_dir():
        raise DataError(f"{run}: no such run directory.")
    if not (run / "run.yaml").is_file():
        raise DataError(f"{run}: no run.yaml in it; name a directory that `mmalign train` wrote.")


def _number(folder: Path) -> int:
    number = folder.name.partition("-")[0]
    return int(number) if number.isdigit() else -1
