"""Is the output as long as it should be? A window of lengths with soft edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmalign.core.options import NotNegative, PositiveOrInfinite
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.functional import length_window
from mmalign.rewards.text._lengths import Unit, lengths_of

__all__ = ["Length"]


@dataclass
class Length:
    """1 inside [low, high], falling linearly to 0 over `rise` below and `fall` above (`functional.length_window`).

    | reward | options |
    |---|---|
    | R³'s words/100 (2402.03469), up to 1 | low: 100 |
    | ToolRL's thinking length (2504.13958) | low: 512, within: think |
    | min(L/Lmax, 1), as for GCPO (2506.07160, a reconstruction) | low: Lmax, unit: tokens |
    | at most 50 words | low: 0, high: 50 |

    Args:
        low: the shortest that is long enough.
        high: the longest that is short enough.
        rise: how far below `low` the value is 0; `low` itself by default.
        fall: the same above `high`.
        unit: tokens (as sampled; needs a policy's rollout), words or characters.
        within: measure only what stands inside this tag.
    """

    low: NotNegative = 0.0
    high: PositiveOrInfinite = math.inf
    rise: NotNegative | None = None
    fall: NotNegative = 0.0
    unit: Unit = "words"
    within: str = ""
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or min(self.rise or 0, self.fall) < 0:
            raise ValueError("lengths are 0 <= low <= high, rise and fall not negative")

    @property
    def deterministic(self) -> bool:
        """Words and characters are the text's own; tokens are the sampler's."""
        return self.unit != "tokens"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts by their lengths, which `parts` holds as "length", in the option's `unit`."""
        lengths = lengths_of(rollout, self.unit, self.within)
        value = length_window(lengths, self.low, self.high, self.rise, self.fall)
        return Scores.of(value, parts={"length": lengths})
