"""Runs that follow one another: all are checked before the first trains, and what is finished is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmalign
from mmalign.core.checkpoints import complete
from mmalign.core.config import RunFile, draft
from mmalign.core.errors import ConfigError, MmalignError, together
from mmalign.run.build import examine
from mmalign.run.directory import RunDirectory
from pipelines._finished import is_finished, require_same

Stage = tuple[Path, Sequence[str], Path]  # run file, changes, run directory


def of_stage(changes: Sequence[str], name: str, names: Sequence[str]) -> list[str]:
    """Return the changes that are of the stage `name`, without it; those that name no stage are of all."""
    others = tuple(f"{other}." for other in names if other != name)
    return [change.removeprefix(f"{name}.") for change in changes if not change.startswith(others)]


def check(stages: Sequence[Stage], resume: bool) -> None:
    """Raise every fault of all stages before one of them trains.

    A model that an earlier stage will leave is not there yet: a file is checked with the model that it names itself.
    """
    faults: list[MmalignError] = []
    for file, changes, out in stages:
        try:
            examine(draft(file, changes))
            if not resume:
                RunDirectory(out).refuse(fresh=True)
        except MmalignError as error:
            faults.append(ConfigError([f"{out.name}: {line}" for line in getattr(error, "faults", [str(error)])]))
    if resume and not any((out / "run.yaml").is_file() for _, _, out in stages):
        faults.append(ConfigError(f"--resume {stages[0][2].parent}: holds no run of these stages."))
    if faults:
        raise together(faults)


def stage(run: RunFile, out: Path) -> Path:
    """The run directory `out`: trained, continued where it was stopped, or left as it is where it is finished.

    Raises:
        ConfigError: what is there is another run than is asked for.
    """
    if is_finished(out):
        require_same(out, run)
        print(f"finished       {out}", flush=True)
    elif complete(out / "checkpoints"):
        require_same(out, run)
        mmalign.train(run, resume=out)
    else:
        mmalign.train(run, out=out)
    return out
