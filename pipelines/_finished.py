"""A finished run is read, not run again: but only where it is the run that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.checkpoints import latest, step_of
from mmalign.core.config import RunFile, load
from mmalign.core.errors import ConfigError, MmalignError
from mmalign.run.build import build
from mmalign.run.directory import RunDirectory


def is_finished(folder: Path) -> bool:
    """Is there a run that took all its steps and told of them?"""
    try:
        step, measured = step_of(latest(folder / "checkpoints")), (folder / "evaluation" / "before").is_dir()
        return step == load(folder / "run.yaml").trainer.steps and RunDirectory(folder).is_finished(step, measured)
    except MmalignError:
        return False


def require_same(folder: Path, wanted: RunFile) -> None:
    """Is the run in `folder` the run of `wanted`? Options it was not yet told of count as their defaults.

    Raises:
        ConfigError: naming every option that differs, or what today's code does not accept of the run's file.
    """
    instead = f"name another folder by --runs, or remove {folder}."
    try:
        there = resolved(load(folder / "run.yaml"))
    except MmalignError as error:
        raise ConfigError(
            f"{folder}: holds a run that cannot be compared with what is asked for; {instead}\n{error}"
        ) from None
    if keys := differing(there, resolved(wanted)):
        raise ConfigError(f"{folder}: holds a run with another {', '.join(keys)} than is asked for; {instead}")


def resolved(run: RunFile) -> dict[str, Any]:
    """Everything a run file says, defaults filled in, except for where it lies."""
    settings = build(run).resolved().to_dict()
    settings.pop("base", None)
    return settings


def differing(there: Any, here: Any, at: str = "") -> list[str]:
    """Dotted keys under which two resolved files differ; where components have other names, that of the section."""
    if isinstance(there, dict) and isinstance(here, dict) and there.get("name") == here.get("name"):
        below = (differing(there.get(key), here.get(key), f"{at}.{key}".lstrip(".")) for key in {**there, **here})
        return [key for keys in below for key in keys]
    return [] if there == here else [at]
