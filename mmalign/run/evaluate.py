"""`evaluate(run)`: a policy on held-out prompts, with any rewards."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmalign.core.config import Draft, RunFile, draft
from mmalign.core.errors import MmalignError
from mmalign.core.files import write_folder_beside
from mmalign.core.signals import interrupting
from mmalign.data.held_out import shared_with_training
from mmalign.rewards.reference_sets.kept import KeptReferences
from mmalign.rewards.reference_sets.source import stored_in
from mmalign.run.build import Parts, examine
from mmalign.run.directory import RunDirectory
from mmalign.run.hooks import measure
from mmalign.run.resuming import checkpoint_of, resume_point
from mmalign.run.train import summarise, tell
from mmalign.training import checkpoint


@dataclass
class Evaluated:
    """What was measured: `rows` (before/after) for a run directory, `evaluation` for the policy as it is now.

    `directory` is where a run directory's comparison was written. `asked` says what was measured on: "Held-out
    prompts", or the file that was named, with how many of its prompts are trained on.
    """

    evaluation: Any
    rows: Sequence[Any]
    directory: RunDirectory | None
    asked: str = "Held-out prompts"


def evaluate(
    run: RunFile | Path | str,
    prompts: Path | str | None = None,
    changes: Sequence[str] = (),
    allow: Collection[str] = (),
) -> Evaluated:
    """Measure a policy on held-out prompts.

    Args:
        run: a run file (the generator as it is), or a run directory (its start against its newest checkpoint). The
            directory's evaluation, summary and report are written again; with other prompts or changes, or of an
            earlier checkpoint (RUN@STEP, RUN@best), they stay, and the comparison is written to a folder of its own in
            `evaluated/`.
        prompts: a file of prompts instead of the run's own held-out ones.
        changes: `key.path=value` overrides.
        allow: modules that the run file may name.
    """
    place, step = (None, None) if isinstance(run, RunFile) else resume_point(run)
    directory = RunDirectory(place) if place is not None and place.is_dir() else None
    read = Draft(run) if isinstance(run, RunFile) else draft(directory.path / "run.yaml" if directory else run, changes)
    if prompts:
        section = replace(read.file.evaluation, prompts=str(Path(prompts).absolute()))
        read = replace(read, file=replace(read.file, evaluation=section))
    parts, questions = examine(read, allow, training=False)
    called = _prompts_in_words(parts, questions)
    resolved = parts.resolved()  # before loading enters what the checkpoint says
    if directory is None:
        parts.prepare()
        parts.load()
        return Evaluated(measure(parts, questions), [], None, called)
    chosen = checkpoint_of(directory, step, "adapter")
    references, own = KeptReferences(directory.references), not (prompts or changes or step)
    if not own:
        directory = _beside(directory, Path(prompts).stem if prompts else "changed" if changes else chosen.name)
    with interrupting(), directory.held(fresh=False):
        with stored_in(references):
            parts.prepare()
        parts.load()
        if not own:
            directory.start(resolved, fresh=True)
        return replace(_compare_with_start(parts, chosen, directory, questions, own), asked=called)


def _prompts_in_words(parts: Parts, questions: Sequence[Any]) -> str:
    """What the prompts are called: only those that nothing was trained on are held out."""
    if not (named := parts.file.evaluation.prompts):
        return "Held-out prompts"
    try:
        shared, total = shared_with_training(parts.source, questions)
    except (MmalignError, OSError) as error:
        return f"Prompts of {Path(named).name} (what was trained on cannot be read: {error})"
    return f"Prompts of {Path(named).name}" + (f" ({shared} of {total} are trained on)" if shared else "")


def _beside(run: RunDirectory, name: str) -> RunDirectory:
    """A new folder of the run for what it was asked later."""
    folder = run.path / "evaluated"
    taken = [int(number) for path in folder.glob("*-*") if (number := path.name.partition("-")[0]).isdigit()]
    return RunDirectory(folder / f"{max(taken, default=0) + 1}-{name}")


def _compare_with_start(
    parts: Parts, chosen: Path, directory: RunDirectory, prompts: Sequence[Any], own: bool
) -> Evaluated:
    from mmalign.evaluation.report import write_report
    from mmalign.evaluation.table import read_seconds

    start = time.perf_counter()
    evaluations = {"before": measure(parts, prompts)}
    parts.adapter.restore(chosen / "adapter")
    evaluations["after"] = measure(parts, prompts)
    with write_folder_beside(directory.path / "evaluation") as beside:  # both or none
        for when, evaluation in evaluations.items():
            evaluation.save(beside / when)
            (beside / when / "done").write_text(f"{checkpoint.step_of(chosen)}\n", encoding="utf-8")
    rows = summarise(parts, directory, read_seconds(directory.path / "summary.json") or time.perf_counter() - start)
    if own:
        tell(directory, checkpoint.step_of(chosen))
    else:
        write_report(directory.path)
    return Evaluated(evaluations["after"], rows, directory)
