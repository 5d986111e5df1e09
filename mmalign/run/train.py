"""`train(run)`: one run file, from first check to last report."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmalign.core.checkpoints import best_step
from mmalign.core.config import RunFile, draft
from mmalign.core.errors import CheckpointError, ConfigError, MmalignError
from mmalign.core.objective import ObjectiveTraits
from mmalign.core.protocols import AdapterTraits, PolicyTraits
from mmalign.core.rng import Streams
from mmalign.core.signals import Interrupted, interrupting, signal_of
from mmalign.data.batches import Batches
from mmalign.data.row_kinds import prompt_of
from mmalign.rewards.reference_sets.kept import KeptReferences
from mmalign.rewards.reference_sets.source import stored_in
from mmalign.run.alarms import Alarms
from mmalign.run.build import Parts, examine, training_rows
from mmalign.run.build import held_out as held_out
from mmalign.run.directory import RunDirectory
from mmalign.run.encoded_once import encoded_line, keep_encoded
from mmalign.run.held_out_loss import HeldOutLoss
from mmalign.run.hooks import Announce, Evaluate, Preview, Save, Timed, evaluate_now, log_means, say
from mmalign.run.launch import check_accelerator, check_environment, is_first, on_cpu, taking_part
from mmalign.run.long_texts import long_texts
from mmalign.run.media_lines import media_lines
from mmalign.run.notes import notes, weighting_line
from mmalign.run.prior import preserve_prior
from mmalign.run.resuming import (
    check_unfinished,
    checkpoint_of,
    left,
    refuse_both,
    resume_point,
    resuming,
)
from mmalign.run.sink import RunSink
from mmalign.run.trackers import open_tracker
from mmalign.training import checkpoint
from mmalign.training.loop import Hook, training_loop
from mmalign.training.session import Session
from mmalign.training.stopping import stop_on_signal
from mmalign.training.update import Update

log = logging.getLogger("mmalign")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # errors of a disk, not of a name


@dataclass
class Finished:
    """A finished run: its parts, its directory and the rows of its summary table."""

    parts: Parts
    directory: RunDirectory
    rows: Sequence[Any]

    def __repr__(self) -> str:
        changes = "; ".join(f"{row.name} {row.before:.4g} → {row.after:.4g}" for row in self.rows)
        return f"Finished({self.directory.path}{f': {changes}' if changes else ''})"


def train(
    run: RunFile | Path | str,
    changes: Sequence[str] = (),
    out: Path | str | None = None,
    resume: Path | str | None = None,
    allow: Collection[str] = (),
    judges: Mapping[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
) -> Finished:
    """Train one run file and leave a complete run directory.

    Args:
        run: a run file or its path.
        changes: `key.path=value` overrides (with a path).
        out: the run directory; `runs/<file name>` by default.
        resume: a run directory to continue from its newest whole checkpoint, or from that of a step: "runs/mine@200".
            What came after it is set aside. A run that took all its steps and was stopped before its report gets it.
        allow: modules that the run file may name as "module:Class".
        judges: rewards of one's own by name, which only measure, beside those of the run file.
        hooks: called after each step, in every process, as `hook(session, policy, experience)`; `session.step` and
            `session.latest` (the step's numbers) say where it stands.

    Raises:
        ConfigError, CapabilityError, DataError: before any weight is loaded; also if another process trains there.
        CheckError, ScoreError, OutOfMemory, CheckpointError: during the run; what was saved stays whole.
        Stopped: Ctrl-C, SIGTERM, SIGHUP or SIGUSR1; the step was finished and a checkpoint written, unless it came
            outside the steps or twice.
    """
    refuse_both(out, resume)
    place, step = (out, None) if resume is None else resume_point(resume)
    read = run if isinstance(run, RunFile) else draft(run, changes)
    run = read if isinstance(read, RunFile) else read.file
    out = Path(place or Path("runs") / (run.source.stem if run.source else "run"))
    directory = RunDirectory(out.absolute())  # foreign code may change the folder that relative paths start at
    way = resuming(directory.path, allow, own=bool(judges or hooks))
    directory.refuse(fresh=resume is None)
    with directory.held(fresh=resume is None) if is_first() else nullcontext():
        begin = None if resume is None else checkpoint_of(directory, step)
        parts, prompts = examine(read, allow, judges=judges)
        if begin is not None:
            check_unfinished(directory, checkpoint.step_of(begin), run.trainer.steps, measured=bool(prompts))
            same_questions(directory.evaluation("before"), prompts)
        references = KeptReferences(directory.references, read=begin is not None, writes=is_first())
        with stored_in(references):
            prepare_rewards(parts, prompts)
        with interrupting(), stopped_with_a_way_on(directory, run.trainer.steps, way):
            return _trained(parts, directory, prompts, begin, references, hooks)


def prepare_rewards(parts: Parts, prompts: Sequence[Any]) -> None:
    """Load what the rewards and the objective need, and say what the run file may not have meant."""
    from mmalign.rewards.engine.foreign_code import Preparable, prepare

    under_way("loading what the rewards need")
    parts.prepare(judges=bool(prompts))
    if isinstance(parts.objective, Preparable):
        prepare(parts.objective, "objective")
    if is_first():
        for note in [*notes(parts), *long_texts(parts, prompts)]:
            print(f"note: {note}", file=sys.stderr)


@contextmanager
def stopped_with_a_way_on(directory: RunDirectory, steps: int, way: str) -> Iterator[None]:
    """Inside it a signal and a full disk end a run of so many steps with what is left, and the `way` to go on.

    Raises:
        Stopped: instead of KeyboardInterrupt.
        CheckpointError: instead of a disk's OSError.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        message = left(directory, steps, way) if is_first() else ""
        raise Stopped(signal_of(stopped), message) from None
    except OSError as error:
        if isinstance(error, MmalignError) or error.errno not in DISK:
            raise
        where = error.filename or directory.path
        raise CheckpointError(
            f"{where}: could not be written ({error.strerror}). {left(directory, steps, way)}"
        ) from error


class Stopped(Interrupted):
    """A signal during a run; the message says what is left of it and how to go on."""


def under_way(what: str) -> None:
    """Say what takes its time now; of several processes the first does."""
    if is_first():
        say(f"{what} …")


def _trained(
    parts: Parts,
    directory: RunDirectory,
    prompts: list[Any],
    begin: Path | None,
    references: KeptReferences,
    hooks: Sequence[Hook] = (),
) -> Finished:
    trainer = parts.file.trainer
    session, resolved = start_session(parts, directory)
    if begin is None:
        if session.is_main:
            directory.start(resolved, fresh=True)
        references.save()
        if prompts:  # never one that another run left here when it was stopped at its start
            under_way(f"measuring the start on {len(prompts)} prompts")
            evaluate_now(parts, prompts, directory.evaluation("before"), session)
    else:
        _resume(parts, directory, session, resolved, prompts, begin)
        references.save()
    preserve_prior(parts, directory.prior, session)
    if trainer.tracker != "none":
        open_tracker(session.accelerator, trainer.tracker, directory.path, resolved.to_dict(), session.step)
    held_out_rows = HeldOutLoss.of(parts)
    if begin is None:
        held_out_rows.now(session)
    preview = Preview(parts, prompts[:16], trainer.preview_every)
    save = Save(parts, directory, trainer.save_every, partial(kept_step, parts, directory))
    alarms = Alarms(parts, directory, save.now)
    evaluate = Evaluate(parts, prompts, trainer.evaluate_every, alarms.evaluated)
    with closing(Announce(trainer.steps)) as announce, stop_on_signal(session.processes, session.is_main) as request:
        stop = Agreed(session, request)
        training_loop(
            parts.policy,
            parts.objective,
            session,
            [announce, *map(Timed, hooks), preview, evaluate, held_out_rows, alarms, save],
            stop,
        )
        if stop.number:
            save.now(session)
    if number := stop.number or request():
        session.accelerator.end_training()
        raise Interrupted(number)
    return finish(parts, directory, session, prompts, alarms)


def kept_step(parts: Parts, directory: RunDirectory) -> int:
    """Return the step whose checkpoint stays beside the newest ones (`trainer.keep_best`); 0 for none."""
    return best_step(directory.path) if parts.file.trainer.keep_best else 0


class Agreed:
    """Has a stop been asked of any process? Asked by all of them after each step, and answered alike."""

    def __init__(self, session: Session, signal: Callable[[], int]) -> None:
        self.session, self.signal, self.number = session, signal, 0

    def __call__(self) -> bool:
        """Whether to stop; `number` is the signal's then."""
        self.number = max(self.session.gather(self.signal()))
        return self.number > 0


def _resume(
    parts: Parts, directory: RunDirectory, session: Session, resolved: RunFile, prompts: list[Any], begin: Path
) -> None:
    """Stand where the checkpoint `begin` stood; the start is measured again if what was measured of it is lost."""
    begin = session.gather(begin)[0]
    lost = session.gather(same_questions(directory.evaluation("before"), prompts))[0]
    if lost and prompts:
        if session.is_main:
            log.warning("%s, so the start is measured again.", lost)
        evaluate_now(parts, prompts, directory.evaluation("before"), session)
    if AdapterTraits.of(parts.adapter).train == "lora":
        parts.adapter.restore(begin / "adapter")  # refuses one of another rank, scale or other modules
    checkpoint.load_checkpoint(begin, session, parts.stateful())
    session.meet()  # nobody reads it any more
    if session.is_main:
        directory.start(resolved, fresh=False, step=session.step)


def steps_per_pass_of(parts: Parts) -> int:
    """`trainer.steps_per_pass`, decided where it is "auto": a step of a diffusion policy is a forward of its own."""
    steps = parts.file.trainer.steps_per_pass
    if steps != "auto":
        return steps
    apart = PolicyTraits.of(parts.policy).forward_per_step and not ObjectiveTraits.of(parts.objective).whole_outputs
    return 1 if apart else 0


def start_session(parts: Parts, directory: RunDirectory) -> tuple[Session, RunFile]:
    """Load weights and wrap them for this launch; returns the run file with every default filled in, too.

    Raises:
        ConfigError: a launch that shards weights or optimizer state, or of which accelerate made something else than
            its environment says, before anything is loaded.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    check_environment()
    trainer = replace(parts.file.trainer, steps_per_pass=steps_per_pass_of(parts))
    # Only one process previews: a forward must not wait for the others to share buffers.
    wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        log_with=None if trainer.tracker == "none" else trainer.tracker,
        project_dir=str(directory.path),
        kwargs_handlers=[wrapping],
        cpu=on_cpu(),
    )
    check_accelerator(accelerator)
    if accelerator.is_main_process:
        say(taking_part(accelerator))
    resolved = parts.resolved()  # before the launch's device and the checkpoint's sizes enter
    items = training_rows(parts)
    if accelerator.is_main_process:
        for line in [*media_lines(items), *encoded_line(parts, items)]:
            say(line)
    batches = Batches(
        items, trainer.prompts_per_step, trainer.seed, accelerator.process_index, accelerator.num_processes
    )
    batches.other_data = trainer.other_data
    under_way(f"loading {parts.file.adapter['name']} {parts.file.adapter.get('model', '')}".rstrip())
    parts.load(str(accelerator.device))
    if accelerator.is_main_process and (line := weighting_line(parts)):
        say(line)
    keep_encoded(parts, items)
    half = AdapterTraits.of(parts.adapter).dtype == "fp16"
    update = Update(list(parts.adapter.trainable().values()), trainer, scaled=half)
    session = Session(
        trainer=trainer,
        update_rule=update,
        batches=batches,
        streams=Streams(trainer.seed, accelerator.process_index),
        accelerator=accelerator,
        sink=RunSink(directory, accelerator),
    )
    session.meet()  # one may have had more to download
    if accelerator.num_processes > 1:
        parts.adapter.wrap(accelerator.prepare_model)
    return session, resolved


def same_questions(before: Path, prompts: Sequence[Any]) -> str:
    """Return a resumed run is measured on what its start was measured on; returns why that is lost, or "".

    Raises:
        ConfigError: it was measured on other prompts.
    """
    from mmalign.evaluation.records import Evaluation

    if not prompts:
        return ""
    try:
        measured = Evaluation.load(before)
    except MmalignError as error:
        return str(error).rstrip(".")
    if [p.text for p in measured.prompts] != [prompt_of(item).text for item in prompts]:
        raise ConfigError(
            f"{before}: the run's start was measured on {len(measured.prompts)} prompts, which are not the "
            f"{len(prompts)} that evaluation and data name now; resume with the same ones, and measure on others with "
            "`mmalign evaluate`."
        )
    return ""


def finish(parts: Parts, directory: RunDirectory, session: Session, prompts: list[Any], alarms: Alarms) -> Finished:
    """Evaluate the result, write summary, card and report."""
    rows: Sequence[Any] = []
    if prompts:
        under_way(f"measuring what was learned on {len(prompts)} prompts")
        with session.update_rule.averaged():
            evaluation = evaluate_now(parts, prompts, directory.evaluation("after"), session)
        log_means(session, evaluation)
        alarms.evaluated(session, evaluation)
        if evaluation is not None:
            rows = summarise(parts, directory, session.seconds)
    session.accelerator.end_training()
    if session.is_main:
        tell(directory, session.step)
    return Finished(parts, directory, rows)


def tell(directory: RunDirectory, step: int) -> None:
    """Write the card and the report of the weights after `step`."""
    from mmalign.evaluation.card import write_cards
    from mmalign.evaluation.report import write_report

    write_cards(directory.path)
    write_report(directory.path)
    directory.finished(step)


def summarise(parts: Parts, directory: RunDirectory, seconds: float) -> list[Any]:
    """Write `summary.json` from the evaluations before and after; returns its rows."""
    from mmalign.evaluation.records import Evaluation
    from mmalign.evaluation.table import roles_of, summarize, write_summary

    before, after = (Evaluation.load(directory.evaluation(when)) for when in ("before", "after"))
    rows = summarize(before, after, roles_of(parts.file.to_dict()))
    write_summary(rows, directory.path / "summary.json", seconds, str(directory.path / "report.html"))
    return rows
