"""Wrong answers that are much shorter than the right ones of their group pay for it: against the brevity hack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mmalign.core.options import NotNegative
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.functional import group_length
from mmalign.rewards.text._lengths import NeedsVerdicts, Unit, Verdicts, lengths_of

__all__ = ["GroupLength"]


@dataclass
class GroupLength(NeedsVerdicts):
    """The generalised length penalty of HARMO (2510.05283), a reconstruction: see `functional.group_length`.

    The only rows that pay are wrong ones in a group that also has a right one. Add it to a reward of correctness.

    Args:
        correct: the reward that tells right from wrong, {name: …, options…}.
        threshold: its values above this are right.
        penalty: the most that is paid.
        tolerance: a share of the right answers' mean length, see `form`.
        form: `beyond`: shortfalls up to the tolerance are free; `within`: all is owed from the tolerance on.
        unit: tokens (as sampled; needs a policy's rollout), words or characters.
    """

    correct: str | dict[str, Any] = field(default_factory=lambda: {"name": "exact_match"})
    threshold: float = 0.5
    penalty: NotNegative = 1.0
    tolerance: NotNegative = 0.5
    form: Literal["beyond", "within"] = "beyond"
    unit: Unit = "words"
    modalities = frozenset({"text"})
    differentiable = False
    batch_dependent = True  # a row's score depends on its group: calls are neither split nor cached by row

    def __post_init__(self) -> None:
        if not (self.penalty > 0 and 0 < self.tolerance < 1):
            raise ValueError(f"penalty > 0 and 0 < tolerance < 1, got {self.penalty} and {self.tolerance}")
        self._verdicts = Verdicts(self.correct, self.threshold)

    @property
    def range(self) -> tuple[float, float]:
        """The range from the whole penalty to none."""
        return -self.penalty, 0.0

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, whole groups of them: each length among those of the same prompt decides."""
        lengths = lengths_of(rollout, self.unit)
        right, scores = self._verdicts(rollout)
        group = rollout.group.cpu()
        valid = scores.valid.cpu()
        value = lengths.new_zeros(len(lengths))
        # Rows without a verdict are no one's measure.
        value[valid] = group_length(lengths[valid], right[valid], group[valid], self.penalty, self.tolerance, self.form)
        result = self._verdicts.after(scores, value)
        result.parts["length"] = lengths
        return result
