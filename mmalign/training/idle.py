"""A run in which nothing is learned ends with a sentence, not with a table of no change.

| a step is idle because | how often is that in order? | it ends the run |
|---|---|---|
| no output has a score (not applicable, errors, time-outs) | never: the reward or the data are wrong | after 3 |
| the gradient is not finite | never, but for float16's loss, whose scale is first to be found | after 3 (16) |
| scores are there and equal within every group | now and then, where prompts are easy or hard | after the option |

Steps are counted in a row. A run of which no step at all made an update is ended at its last one, whatever the option.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmalign.core.errors import ScoreError

FEW = 3  # steps in a row that are explained by no luck
_FINDING_SCALE = 16  # steps in which float16's loss may be scaled down to 1


@dataclass
class Idle:
    """Counts steps without an update.

    Args:
        limit: idle steps in a row that end the run (`trainer.stop_on_idle_steps`; 0: none do).
        scaled: the loss is scaled, as float16 needs.
    """

    limit: int
    scaled: bool = False
    learned: bool = False
    _applied: bool = False  # of this step: was an update made
    _finite: bool = True  # and was every gradient
    _row: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("unscored", "endless", "idle"), 0))

    def updated(self, finite: bool) -> None:
        """Take in an update: it was made if its gradient was finite."""
        self._applied, self._finite = self._applied or finite, self._finite and finite

    def finish_step(self, scored: bool) -> None:
        """Count the step; `scored`: had any of its outputs, in any process, a score?"""
        self.learned |= self._applied
        for name, so in (("unscored", not scored), ("endless", not self._finite), ("idle", True)):
            self._row[name] = self._row[name] + 1 if so and not self._applied else 0
        self._applied, self._finite = False, True

    def stop_if_hopeless(self, reward: Any, last: bool) -> None:
        """Raise ScoreError where it is time to stop; `last`: after the last step of a run begun in this session."""
        few = {"unscored": FEW, "endless": _FINDING_SCALE if self.scaled else FEW, "idle": self.limit}
        over = [name for name, count in self._row.items() if self.limit and count >= min(few[name], self.limit)]
        if not over and not (last and not self.learned):
            return
        reason = over[0] if over else next(name for name in ("unscored", "endless", "idle") if self._row[name])
        raise ScoreError(f"nothing was learned in the last {_steps(self._row[reason])}: {_why(reason, reward)}")


def _steps(count: int) -> str:
    return f"{count} steps" if count > 1 else "step"


def _why(reason: str, reward: Any) -> str:
    sentence = f" {reward.told()}" if hasattr(reward, "told") else ""
    if reason == "unscored":
        return f"no output could be scored.{sentence} Mend the reward, its options or the data."
    if reason == "endless":
        return (
            "the gradient was not finite, and such an update is not made. Look for an option that is not finite or far "
            f"too large (trainer.lr, objective), or for scores that are.{sentence}"
        )
    return (
        "within every group all outputs scored the same, or were masked, so that there is nothing to prefer."
        f"{sentence} Choose prompts or a reward that tell outputs apart, or larger groups; trainer.stop_on_idle_steps "
        "says how many such steps in a row are borne (0: all)."
    )
