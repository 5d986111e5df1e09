"""Right answers are worth more when short, wrong ones cost less when long: a cosine of the length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmalign.core.options import AtLeastOne
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.functional import cosine_length
from mmalign.rewards.text._lengths import NeedsVerdicts, Unit, Verdicts, lengths_of

__all__ = ["CosineLength"]


@dataclass
class CosineLength(NeedsVerdicts):
    """The cosine reward of Yeo et al. 2025 (2502.03373), held at its end beyond the limit (`functional.cosine_length`).

    A row for which `correct` has no verdict has none here.

    Args:
        limit: Lmax.
        correct: the reward that tells right from wrong, {name: …, options…}.
        threshold: its values above this are right.
        right: values of a right answer at length 0 and at the limit.
        wrong: values of a wrong one.
        unit: tokens (as sampled; needs a policy's rollout), words or characters.
    """

    limit: AtLeastOne = 1024
    correct: str | dict[str, Any] = field(default_factory=lambda: {"name": "exact_match"})
    threshold: float = 0.5
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-1.0, -0.5)
    unit: Unit = "tokens"
    modalities = frozenset({"text"})
    differentiable = False

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is at least 1, got {self.limit}")
        self._verdicts = Verdicts(self.correct, self.threshold)

    @property
    def range(self) -> tuple[float, float]:
        """The range of the four corners."""
        return min(*self.right, *self.wrong), max(*self.right, *self.wrong)

    @property
    def deterministic(self) -> bool:
        """Do equal rows score the same? As they do in `correct`; tokens are the sampler's."""
        return self.unit != "tokens" and self._verdicts.traits.deterministic

    def fingerprint(self) -> str:
        """The digest of `correct`."""
        return self._verdicts.fingerprint()

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        lengths = lengths_of(rollout, self.unit)
        right, scores = self._verdicts(rollout)
        result = self._verdicts.after(scores, cosine_length(lengths, right, self.limit, self.right, self.wrong))
        result.parts["length"] = lengths
        return result
