"""How much of a sound is cut off at full scale."""

from __future__ import annotations

from mmalign.core.options import Positive
from mmalign.core.types import Audio, Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.models.waves import finite_sound

__all__ = ["clipping"]


@rule(modalities={"audio"}, range=(-1.0, 0.0))
def clipping(prompt: Prompt, output: Audio, *, limit: Positive = 0.999) -> float:
    """Minus the share of samples, over all channels, at or beyond `limit` of full scale.

    Args:
        limit: the size of a sample from which on it counts as cut off; full scale is 1.
    """
    return -float((finite_sound(output).abs() >= limit).float().mean())
