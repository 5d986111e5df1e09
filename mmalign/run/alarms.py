"""Looks after a run that nobody looks at: says what its numbers warn of, and knows its best evaluation.

alarms.jsonl       a line per alarm: step, kind, what it is about, and a sentence
evaluation/best/   the evaluation after which the watched measure was highest, and its step in `done`

The measure is `trainer.keep_best`, else the first verifier, else the first judge. With `trainer.keep_best` the
checkpoint of that step stays, too: RUN@best.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mmalign.core.checkpoints import best_step
from mmalign.core.errors import CheckError, MmalignError
from mmalign.core.experience import Experience
from mmalign.core.files import write_folder_beside
from mmalign.core.protocols import AnyPolicy
from mmalign.evaluation.alarms import Alarm, StepAlarms, compare_evaluations
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.table import Role, roles_of
from mmalign.run.build import Parts
from mmalign.run.directory import RunDirectory
from mmalign.training.session import Session


def watched_measure(keep_best: str, roles: Mapping[str, Role]) -> str | None:
    """Return the measure whose highest evaluation is the best one; None where nothing but the rewards measures."""
    if keep_best:
        return keep_best
    return next((name for role in ("verifier", "judge") for name, of in roles.items() if of == role), None)


@dataclass
class Alarms:
    """A hook of each step; `evaluated` is called after each evaluation. All processes call both.

    `save` writes the checkpoint of the step at which a run is stopped, or that is the best so far.
    """

    parts: Parts
    directory: RunDirectory
    save: Callable[[Session], None]
    _steps: StepAlarms = field(default_factory=StepAlarms, repr=False)
    _best: tuple[int, Evaluation] | None = field(default=None, repr=False)
    _raised: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Look at the step's numbers."""
        if self.parts.file.trainer.alarms != "none":
            self._raise(session, self._steps.see(session.latest) if session.is_main else [])

    def evaluated(self, session: Session, evaluation: Evaluation | None) -> None:
        """Compare an evaluation after this step with the best one, which it may become; others than main have None."""
        alarms, better = self._compared(session.step, evaluation) if evaluation is not None else ([], False)
        if self.parts.file.trainer.keep_best and session.gather(better)[0]:
            self.save(session)
        if self.parts.file.trainer.alarms != "none":
            self._raise(session, alarms)

    def _compared(self, step: int, now: Evaluation) -> tuple[list[Alarm], bool]:
        if (best := self._known_best(step)) is None:
            return [], False
        at, earlier = best
        roles = roles_of(self.parts.file.to_dict())
        trained = [name for name, role in roles.items() if role == "trained"]
        alarms = compare_evaluations(earlier, now, trained, [name for name in roles if name not in trained], at)
        name = watched_measure(self.parts.file.trainer.keep_best, roles)
        going_on = {(alarm.kind, alarm.about) for alarm in alarms}
        new = [alarm for alarm in alarms if (alarm.kind, alarm.about) not in self._raised]
        self._raised = going_on
        better = name is not None and now.means().get(name, float("nan")) > earlier.means().get(name, float("nan"))
        if better:
            self._best = (step, now)
            with write_folder_beside(self.directory.evaluation("best")) as beside:
                now.save(beside)
                (beside / "done").write_text(f"{step}\n", encoding="utf-8")
        return new, better

    def _known_best(self, step: int) -> tuple[int, Evaluation] | None:
        """The best evaluation before this step: kept since, or of the directory of a resumed run, or the start."""
        if self._best is None:
            try:
                at = best_step(self.directory.path)
                folder = self.directory.evaluation("best" if at else "before")
                self._best = (at, Evaluation.load(folder))
            except MmalignError:  # the start was not measured
                return None
        return self._best if self._best[0] < step else None

    def _raise(self, session: Session, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self.directory.append("alarms.jsonl", {"step": session.step, **vars(alarm)})
            print(f"alarm: step {session.step}: {alarm.text}", file=sys.stderr, flush=True)
        trainer = self.parts.file.trainer
        if trainer.alarms != "stop" or session.step == trainer.steps:  # after the last step there is nothing to stop
            return
        raised: list[str] = session.gather([f"{alarm.kind} ({alarm.about})" for alarm in alarms])[0]
        if raised:
            self.save(session)
            raise CheckError(
                f"step {session.step}: {', '.join(raised)}: trainer.alarms is stop, so the run ends here. Its "
                f"checkpoint is written, and the sentences stand in {self.directory.path / 'alarms.jsonl'}."
            )
