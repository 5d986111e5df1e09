"""`train(run)`: one run file, from first check to last report."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.core.config import RunFile, draft
from mmalign.core.errors import ConfigError
from mmalign.core.rng import Streams
from mmalign.data._batches import Batches
from mmalign.run.build import Parts, examine, notes
from mmalign.run.build import held_out as held_out
from mmalign.run.directory import RunDirectory
from mmalign.run.hooks import Announce, Evaluate, Preview, Save, evaluate_now
from mmalign.run.launch import check_accelerator, check_environment, is_first
from mmalign.training import checkpoint
from mmalign.training.loop import train as run_loop
from mmalign.training.session import Session
from mmalign.training.stopping import stop_on_interrupt
from mmalign.training.update import Update


@dataclass
class Finished:
    """A finished run: its parts, its directory and the rows of its summary table."""

    parts: Parts
    directory: RunDirectory
    rows: Sequence[Any]


def train(
    run: RunFile | Path | str,
    changes: Sequence[str] = (),
    out: Path | str | None = None,
    resume: Path | str | None = None,
    allow: Collection[str] = (),
) -> Finished:
    """Train one run file and leave a complete run directory.

    Args:
        run: a run file or its path.
        changes: `key.path=value` overrides (with a path).
        out: the run directory; `runs/<file name>` by default.
        resume: a run directory to continue from its newest complete checkpoint.
        allow: modules that the run file may name as "module:Class".

    Raises:
        ConfigError, CapabilityError, DataError: before any weight is loaded.
        CheckError, ScoreError, OutOfMemory, CheckpointError: during the run; what was saved stays whole.
        Stopped: Ctrl-C; the step was finished and a checkpoint written, unless it came outside the steps or twice.
    """
    refuse_both(out, resume)
    read = run if isinstance(run, RunFile) else draft(run, changes)
    run = read if isinstance(read, RunFile) else read.file
    directory = RunDirectory(Path(resume or out or Path("runs") / (run.source.stem if run.source else "run")))
    if resume is not None:
        check_unfinished(directory, run.trainer.steps)
    parts, prompts = examine(read, allow)
    directory.refuse(fresh=resume is None)
    if resume is not None:
        same_questions(directory.evaluation("before"), prompts)
    if is_first():
        for note in notes(parts):
            print(f"note: {note}", file=sys.stderr)
    with directory.held() if is_first() else nullcontext():
        try:
            return _trained(parts, directory, prompts, resumed=resume is not None)
        except KeyboardInterrupt:
            if not is_first():
                raise
            raise Stopped(left(directory, run.trainer.steps, allow)) from None


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what is left of it and how to go on."""


def refuse_both(out: Path | str | None, resume: Path | str | None) -> None:
    """Raise ConfigError if a run is to go on and to be written elsewhere."""
    if out is not None and resume is not None:
        raise ConfigError(f"--out {out}: a resumed run goes on in its own folder, {resume}; leave --out away.")


def check_unfinished(directory: RunDirectory, steps: int) -> None:
    """Can the run go on? Said before anything is loaded.

    Raises:
        CheckpointError: there is no whole checkpoint.
        ConfigError: it has taken all its steps.
    """
    if (step := checkpoint.step_of(checkpoint.latest(directory.checkpoints))) >= steps:
        raise ConfigError(f"{directory.path}: already at step {step} of {steps}; raise trainer.steps.")


def left(directory: RunDirectory, steps: int, allow: Collection[str] = ()) -> str:
    """What a run of so many steps that was stopped has left, and the command that goes on from there."""
    place = shlex.quote(str(directory.path))
    if not (found := checkpoint.complete(directory.checkpoints)):
        return f"stopped before the first checkpoint; the same command starts again in {place}."
    more = "".join(f" --allow {shlex.quote(module)}" for module in allow)
    if (step := checkpoint.step_of(found[-1])) < steps:
        return f"stopped; `mmalign train --resume {place}{more}` goes on after step {step} of {steps}."
    return f"stopped after the last step; `mmalign evaluate {place}{more}` measures what was learned."


def _trained(parts: Parts, directory: RunDirectory, prompts: list[Any], resumed: bool) -> Finished:
    trainer = parts.file.trainer
    session = start_session(parts, directory, resumed)
    if prompts and not resumed:  # never one that another run left here when it was stopped at its start
        evaluate_now(parts, prompts, directory.evaluation("before"), session)
    preview = Preview(parts, directory, prompts[:16], trainer.preview_every)
    evaluate = Evaluate(parts, directory, prompts, trainer.evaluate_every)
    save = Save(parts, directory, trainer.save_every)
    processes = session.accelerator.num_processes
    with closing(Announce(trainer.steps)) as announce, stop_on_interrupt(processes) as stop:
        run_loop(parts.policy, parts.objective, session, [announce, preview, evaluate, save], stop)
        if stop():
            save.now(session)
    if stop():
        session.accelerator.end_training()
        raise KeyboardInterrupt
    return finish(parts, directory, session, prompts)


def start_session(parts: Parts, directory: RunDirectory, resumed: bool) -> Session:
    """Load weights, wrap them for this launch, and stand at the right step.

    Raises:
        ConfigError: a launch that shards weights or optimizer state, before anything is loaded.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    check_environment()
    trainer = parts.file.trainer
    tracker = None if trainer.tracker == "none" else trainer.tracker
    # Only one process previews and evaluates: a forward must not wait for the others to share buffers.
    wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        log_with=tracker,
        project_dir=str(directory.path),
        kwargs_handlers=[wrapping],
    )
    check_accelerator(accelerator)
    resolved = parts.resolved()  # before the launch's device and the checkpoint's sizes enter
    if hasattr(parts.adapter, "device") and getattr(parts.adapter, "device", None) is None:
        parts.adapter.device = str(accelerator.device)
    parts.load()
    half = getattr(parts.adapter, "dtype", None) == "fp16"
    update = Update(list(parts.adapter.trainable().values()), trainer, scaled=half)
    items = parts.source.training_items()
    batches = Batches(items, trainer.batch, trainer.seed, accelerator.process_index, accelerator.num_processes)
    if accelerator.num_processes > 1:
        parts.adapter.module = accelerator.prepare_model(parts.adapter.module)
    session = Session(
        trainer=trainer,
        update_rule=update,
        batches=batches,
        streams=Streams(trainer.seed, accelerator.process_index),
        accelerator=accelerator,
        record=recorder(directory, accelerator),
    )
    if resumed:
        checkpoint.load(checkpoint.latest(directory.checkpoints), session, parts.stateful())
    if session.is_main:
        directory.start(resolved, fresh=not resumed)
        directory.rewind_metrics(session.step)
    if tracker:
        accelerator.init_trackers(
            "mmalign", config={"run": directory.path.name, "objective": parts.file.objective["name"]}
        )
    return session


def recorder(directory: RunDirectory, accelerator: Any) -> Callable[[int, dict[str, float]], None]:
    """Writes each step's numbers to metrics.jsonl (main process) and to the trackers, if any."""

    def record(step: int, numbers: dict[str, float]) -> None:
        if accelerator.is_main_process:
            directory.append_metrics(step, numbers)
        accelerator.log(numbers, step=step)

    return record


def same_questions(before: Path, prompts: Sequence[Any]) -> None:
    """A resumed run is measured on what its start was measured on.

    Raises:
        ConfigError: it was measured on other prompts, or on none.
    """
    if not prompts:
        return
    asked = []
    if (before / "done").exists():
        rows = (before / "rows.jsonl").read_text(encoding="utf-8").split("\n")
        asked = [json.loads(row)["prompt"] for row in rows if row]
    if asked != [getattr(item, "prompt", item).text for item in prompts]:
        raise ConfigError(
            f"{before}: the run's start was measured on {len(asked)} prompts, which are not the {len(prompts)} that "
            "evaluation and data name now; resume with the same ones, and measure on others with `mmalign evaluate`."
        )


def finish(parts: Parts, directory: RunDirectory, session: Session, prompts: list[Any]) -> Finished:
    """Evaluate the result, write summary, card and report."""
    from mmalign.evaluation.card import card
    from mmalign.evaluation.report import write_report

    rows: Sequence[Any] = []
    session.accelerator.end_training()
    if session.is_main:
        if prompts:
            with session.update_rule.averaged():
                evaluate_now(parts, prompts, directory.evaluation("after"), session)
            rows = summarise(parts, directory, session.seconds)
        directory.write("README.md", card(directory.path))
        write_report(directory.path)
    return Finished(parts, directory, rows)


def summarise(parts: Parts, directory: RunDirectory, seconds: float) -> list[Any]:
    """Write `summary.json` from the evaluations before and after; returns its rows."""
    from mmalign.evaluation.records import Evaluation
    from mmalign.evaluation.table import roles_of, summarize, write_summary

    before, after = (Evaluation.load(directory.evaluation(when)) for when in ("before", "after"))
    rows = summarize(before, after, roles_of(parts.file.to_dict()))
    write_summary(rows, directory.path / "summary.json", seconds, str(directory.path / "report.html"))
    return rows
