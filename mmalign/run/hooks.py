"""What happens beside training: progress, sample sheets, evaluations, checkpoints. Each hook decides when."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmalign.core.capabilities import generates, judges_only
from mmalign.core.experience import Experience
from mmalign.core.files import write_folder_beside
from mmalign.core.pace import Pace
from mmalign.core.protocols import AnyPolicy, Searching
from mmalign.core.rng import stream
from mmalign.evaluation.records import Evaluation
from mmalign.run.build import Parts
from mmalign.run.directory import RunDirectory
from mmalign.training import checkpoint
from mmalign.training.failures import evaluating
from mmalign.training.loop import Hook
from mmalign.training.session import Session


def due(step: int, every: int) -> bool:
    """Is something that happens every `every` steps (0: never) due after `step`?"""
    return every > 0 and step % every == 0


@dataclass
class Announce:
    """A progress bar on a terminal, a plain line now and then elsewhere; nothing once nobody reads it any more."""

    steps: int
    lines: int = 20
    _bar: Any = field(default=None, repr=False)
    _has_reader: bool = field(default=True, repr=False)

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Show the step and its main numbers."""
        if not (session.is_main and self._has_reader):
            return
        try:
            self._show(session)
        except (OSError, SystemExit):  # the pipe or terminal is gone (rich exits then), or its disk is full
            self._has_reader = False
            unheard()

    def _show(self, session: Session) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = "  ".join(f"{name} {value:.4g}" for name, value in headline(session.latest))
        if Console().is_terminal:
            if self._bar is None:
                columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
                self._bar = Progress(*columns)
                self._bar.start()
                self._bar.add_task("", total=self.steps, completed=session.step)
            self._bar.update(0, completed=session.step, description=text)
        elif due(session.step, max(1, self.steps // self.lines)):
            print(f"step {session.step}/{self.steps}  {text}", flush=True)

    def close(self) -> None:
        """Leave the bar as it stands and give the terminal its cursor back."""
        if self._bar is not None and self._has_reader:
            self._bar.stop()


def say(text: str) -> None:
    """Print a line, if somebody reads it."""
    try:
        print(text, flush=True)
    except OSError:
        unheard()


def unheard() -> None:
    """Standard output leads nowhere from now on: what is printed later, and at the end, must not fail either."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def headline(numbers: dict[str, float]) -> list[tuple[str, float]]:
    """The numbers worth a glance: rewards first (of a set its value, for credits sum to 0), then loss and gradient.

    The loss of imitation is per token, or per target where outputs are no texts. Zeros have no sign.
    """
    names = [k for k in numbers if k.startswith("reward/") and k.count("/") == 1]
    rewards = [(k, numbers.get(f"{k}/parts/set", numbers[k]) + 0.0) for k in names]
    fitted = next((numbers[k] for k in ("fit/per_token", "fit/target") if k in numbers), None)
    rewards += [] if fitted is None else [("loss", -fitted + 0.0)]
    others = ("kl/reference", "kl/velocity", "score/loss", "margin/accuracy", "grad/norm")
    rest = [(k, numbers[k]) for k in others if k in numbers]
    seconds = sum(v for k, v in numbers.items() if k.startswith("time/"))
    return [*rewards[:3], *rest, ("seconds", seconds)]


@dataclass
class Timed:
    """A hook of one's own, whose seconds are logged as `time/hooks`."""

    hook: Hook

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Call it."""
        with session.timed_apart("hooks"):
            self.hook(session, policy, experience)


@dataclass
class Preview:
    """The same prompts with the same noise every time, as a sheet of pictures and a table of rows."""

    parts: Parts
    prompts: Sequence[Any]
    every: int

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Make samples when due."""
        if not (self.prompts and session.is_main and due(session.step, self.every) and generates(policy)):
            return
        showing = evaluating(len(self.prompts), len(self.prompts))
        noise = [stream(self.parts.file.evaluation.seed, "preview", row) for row in range(len(self.prompts))]
        with session.timed_apart("preview"), session.update_rule.averaged(), showing:
            rollout = policy.generate(list(self.prompts), noise)
            scores = {name: reward(rollout) for name, reward in measures(self.parts).items() if callable(reward)}
            session.sink.samples(session.step, rollout, scores)


@dataclass
class Evaluate:
    """Held-out scores along the way, as `eval/<reward>` in the metrics; all processes take part.

    After the last step it is left to the run's end, which measures the result.
    """

    parts: Parts
    prompts: Sequence[Any]
    every: int
    then: Callable[[Session, Any], None] = lambda session, evaluation: None

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Measure when due, and hand the evaluation (None in other processes than the main one) to `then`."""
        if not (self.prompts and due(session.step, self.every)) or session.step == session.trainer.steps:
            return
        with session.timed_apart("evaluate"), session.update_rule.averaged():
            evaluation = measure(self.parts, self.prompts, session)
            log_means(session, evaluation)
        search_on(self.parts, session, evaluation)
        self.then(session, evaluation)


def search_on(parts: Parts, session: Session, evaluation: Evaluation | None) -> None:
    """Tell a combination that tries out numbers what its measure came to; the main process has the evaluation."""
    combination = getattr(parts.reward, "combination", None)
    if isinstance(combination, Searching) and combination.search:
        means = session.gather({} if evaluation is None else evaluation.means())[0]
        combination.measured(means.get(combination.search, math.nan))


def log_means(session: Session, evaluation: Evaluation | None) -> None:
    """Log `eval/<measure>` of this step; None, where another process has the result, logs nothing."""
    if evaluation is not None:
        session.log({f"eval/{name}": value for name, value in evaluation.means().items()})


#: Without `trainer.save_every`: seconds between checkpoints, and how many times what writing one took.
SAVE_SECONDS, SAVE_SHARE = 600.0, 20.0


@dataclass
class Save:
    """A checkpoint when due, and always after the last step.

    Without `every` one is due after ten minutes, or after twenty times what writing one takes if that is longer.
    """

    parts: Parts
    directory: RunDirectory
    every: int
    best: Callable[[], int] = lambda: 0  # the step whose checkpoint stays
    _saved: int = field(default=-1, repr=False)
    _wait: float = field(default=SAVE_SECONDS, repr=False)
    _since: float = field(default_factory=time.monotonic, repr=False)

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Write it whole or not at all."""
        if session.step == session.trainer.steps or self._due(session):
            self.now(session)

    def _due(self, session: Session) -> bool:
        if self.every:
            return due(session.step, self.every)
        return bool(session.gather(time.monotonic() - self._since > self._wait)[0])  # as the main process sees it

    def now(self, session: Session) -> None:
        """Write the state of this step, unless it has been written."""
        if self._saved == session.step:
            return
        start = time.monotonic()
        with session.timed_apart("save"):
            if session.is_main:
                self.directory.sync_metrics()
            checkpoint.save_checkpoint(
                self.directory.checkpoints, session, self.parts.adapter, self.parts.stateful(), self.best()
            )
        self._saved, self._since = session.step, time.monotonic()
        self._wait = max(SAVE_SECONDS, SAVE_SHARE * (self._since - start))


def measures(parts: Parts) -> dict[str, Any]:
    """Every reward that is measured on held-out prompts: the run's own, then the judges; a failed row is a status."""
    from mmalign.core.protocols import SetReward
    from mmalign.rewards import Guarded

    own = {name: slot.reward for name, slot in parts.reward.slots.items()} if parts.reward else {}
    every = {**own, **parts.judges}
    return {n: r if isinstance(r, SetReward) else Guarded(n, r, monitor=True) for n, r in every.items()}


def measure(parts: Parts, prompts: Sequence[Any], session: Session | None = None) -> Any:
    """Evaluate the policy as it stands: what it makes, with the evaluation's own noise, or how it judges.

    With a session all its processes take part; the main one gets the result, the others None.
    """
    from mmalign.evaluation.evaluate import Share, evaluate_shared
    from mmalign.evaluation.judging import judge_shared

    wanted, share = parts.file.evaluation, Share(progress=Pace())
    if session is not None and session.processes > 1:
        first = Pace() if session.is_main else None
        share = Share(session.accelerator.process_index, session.processes, session.gather, first)
    with torch.no_grad(), evaluating(len(prompts), wanted.rows):
        policy = parts.policy
        if judges_only(policy):
            return judge_shared(policy, list(prompts), share, seed=wanted.seed, rows=wanted.rows)
        assert generates(policy)
        return evaluate_shared(
            policy, list(prompts), measures(parts), share, seed=wanted.seed, rows=wanted.rows, keep=wanted.keep
        )


def evaluate_now(parts: Parts, prompts: Sequence[Any], folder: Path, session: Session) -> Any:
    """Evaluate and keep the result under `folder` (all processes take part, the main one writes)."""
    evaluation = measure(parts, prompts, session)
    if evaluation is None:
        return None
    with write_folder_beside(folder) as beside:
        evaluation.save(beside)
        (beside / "done").write_text(f"{session.step}\n", encoding="utf-8")
    return evaluation
