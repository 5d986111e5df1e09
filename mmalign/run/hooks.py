"""What happens beside training: progress, sample sheets, evaluations, checkpoints. Each hook decides when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmalign.core.files import write_folder_beside
from mmalign.core.protocols import judges_only
from mmalign.core.rng import stream
from mmalign.run.build import Parts
from mmalign.run.directory import RunDirectory
from mmalign.training import checkpoint
from mmalign.training.memory import evaluating
from mmalign.training.session import Session


def due(step: int, every: int) -> bool:
    """Is something that happens every `every` steps (0: never) due after `step`?"""
    return every > 0 and step % every == 0


@dataclass
class Announce:
    """A progress bar on a terminal, a plain line now and then elsewhere."""

    steps: int
    lines: int = 20
    _bar: Any = field(default=None, repr=False)

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Show the step and its main numbers."""
        if not session.is_main:
            return
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
        if self._bar is not None:
            self._bar.stop()


def headline(numbers: dict[str, float]) -> list[tuple[str, float]]:
    """The numbers worth a glance: rewards first, then the gradient's norm and the step's seconds."""
    rewards = [(k, v) for k, v in numbers.items() if k.startswith("reward/") and k.count("/") == 1]
    rest = [(k, numbers[k]) for k in ("policy/kl", "margin/accuracy", "grad/norm") if k in numbers]
    seconds = sum(v for k, v in numbers.items() if k.startswith("time/"))
    return [*rewards[:3], *rest, ("seconds", seconds)]


@dataclass
class Preview:
    """The same prompts with the same noise every time, as a sheet of pictures and a table of rows."""

    parts: Parts
    directory: RunDirectory
    prompts: Sequence[Any]
    every: int

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Write `samples/step_<n>/` when due."""
        if not (self.prompts and session.is_main and due(session.step, self.every)):
            return
        from mmalign.evaluation.samples import save_samples

        showing = evaluating(len(self.prompts), len(self.prompts))
        with session.timed("preview"), session.update_rule.averaged(), showing:
            rollout = policy.generate(list(self.prompts), stream(self.parts.file.evaluation.seed, "preview"))
            scores = {name: reward(rollout) for name, reward in measures(self.parts).items() if callable(reward)}
        with write_folder_beside(self.directory.samples(session.step)) as folder:
            save_samples(folder, rollout, scores)


@dataclass
class Evaluate:
    """Held-out scores along the way, as `eval/<reward>` in the metrics."""

    parts: Parts
    directory: RunDirectory
    prompts: Sequence[Any]
    every: int

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Measure when due."""
        if not (self.prompts and session.is_main and due(session.step, self.every)):
            return
        with session.timed("evaluate"), session.update_rule.averaged():
            found = measure(self.parts, self.prompts)
        numbers = {f"eval/{name}": value for name, value in found.means().items()}
        self.directory.append_metrics(session.step, numbers)


@dataclass
class Save:
    """A checkpoint when due, and always after the last step."""

    parts: Parts
    directory: RunDirectory
    every: int
    _saved: int = field(default=-1, repr=False)

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Write it whole or not at all."""
        if due(session.step, self.every) or session.step == session.trainer.steps:
            self.now(session)

    def now(self, session: Session) -> None:
        """Write the state of this step, unless it has been written."""
        if self._saved != session.step:
            checkpoint.save(self.directory.checkpoints, session, self.parts.adapter, self.parts.stateful())
            self._saved = session.step


def measures(parts: Parts) -> dict[str, Any]:
    """Every reward that is measured on held-out prompts: the run's own, then the judges; a failed row is a status."""
    from mmalign.core.protocols import SetReward
    from mmalign.rewards import Guarded

    own = {name: slot.reward for name, slot in parts.reward.slots.items()} if parts.reward else {}
    every = {**own, **parts.judges}
    return {n: r if isinstance(r, SetReward) else Guarded(n, r, monitor=True) for n, r in every.items()}


def measure(parts: Parts, prompts: Sequence[Any]) -> Any:
    """Evaluate the policy as it stands: what it makes, with the evaluation's own noise, or how it judges."""
    from mmalign.evaluation.evaluate import evaluate
    from mmalign.evaluation.judging import judge

    wanted = parts.file.evaluation
    with torch.no_grad(), evaluating(len(prompts), wanted.rows):
        if judges_only(parts.policy):
            return judge(parts.policy, list(prompts), seed=wanted.seed, rows=wanted.rows)
        return evaluate(parts.policy, list(prompts), measures(parts), seed=wanted.seed, rows=wanted.rows)


def evaluate_now(parts: Parts, prompts: Sequence[Any], folder: Path, session: Session) -> Any:
    """Evaluate and keep the result under `folder` (main process only)."""
    if not session.is_main:
        return None
    found = measure(parts, prompts)
    with write_folder_beside(folder) as beside:
        found.save(beside)
        (beside / "done").write_text(f"{session.step}\n")
    return found
