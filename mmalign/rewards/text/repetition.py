"""How much the output repeats itself, as a penalty on n-grams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mmalign.core.options import AtLeastOne
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import RowRule
from mmalign.rewards.functional import repetition_penalty
from mmalign.rewards.parsing import bounded, words

__all__ = ["Repetition"]

_CUTS: dict[str, Callable[[str], Sequence[str]]] = {
    "words": words,
    "characters": lambda text: text,
    "lines": lambda text: [line.strip() for line in text.splitlines() if line.strip()],
}


@dataclass
class Repetition(RowRule):
    """max_penalty × (1 - distinct n-grams / n-grams) (Yeo et al. 2025, 2502.03373, C.2), case ignored; 0 below n items.

    An output that is empty or has more than a million characters is PARSE_FAIL.

    Args:
        n: items per n-gram.
        max_penalty: what pure repetition tends to; not positive.
        unit: words (a Chinese or Japanese character is one), characters, or lines, e.g. one box a line with n: 1.
    """

    n: AtLeastOne = 3
    max_penalty: float = -1.0
    unit: Literal["words", "characters", "lines"] = "words"
    modalities = frozenset({"text"})
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_penalty >= 0:
            raise ValueError(f"n >= 1 and max_penalty < 0, got {self.n} and {self.max_penalty}")

    @property
    def range(self) -> tuple[float, float]:
        """The range from the whole penalty to none."""
        return self.max_penalty, 0.0

    def judge(self, prompt: Prompt, output: str) -> float:
        """The penalty of one output."""
        return repetition_penalty(_CUTS[self.unit](bounded(output).casefold()), self.n, self.max_penalty)
