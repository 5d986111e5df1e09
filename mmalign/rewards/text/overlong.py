"""Soft punishment of outputs that come near the length limit, as in DAPO."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.options import AtLeastOne, Count
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.functional import soft_overlong
from mmalign.rewards.text._lengths import Unit, lengths_of

__all__ = ["Overlong"]


@dataclass
class Overlong:
    """0 up to limit - buffer, then linearly to -1 at the limit, -1 beyond (2503.14476, eq. 13). Add it to a reward.

    Args:
        limit: Lmax; for tokens the policy's `max_new_tokens`.
        buffer: the stretch before it in which the punishment grows.
        unit: tokens (as sampled; needs a policy's rollout), words or characters.
    """

    limit: AtLeastOne = 1024
    buffer: Count = 128
    unit: Unit = "tokens"
    modalities = frozenset({"text"})
    range = (-1.0, 0.0)
    differentiable = False

    def __post_init__(self) -> None:
        if not 0 <= self.buffer <= self.limit:
            raise ValueError(f"buffer lies in [0, limit], got {self.buffer} for a limit of {self.limit}")

    @property
    def deterministic(self) -> bool:
        """Words and characters are the text's own; tokens are the sampler's."""
        return self.unit != "tokens"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts by their lengths, which `parts` holds as "length", in the option's `unit`."""
        lengths = lengths_of(rollout, self.unit)
        return Scores.of(soft_overlong(lengths, self.limit, self.buffer), parts={"length": lengths})
