"""How near a sound is to a wanted loudness (ITU-R BS.1770, in LUFS): against generators that whisper or shout."""

from __future__ import annotations

import math

from mmalign.core.errors import ConfigError
from mmalign.core.options import NotNegative
from mmalign.core.types import Audio, Prompt
from mmalign.media.loudness import lufs
from mmalign.rewards.by_row import rule
from mmalign.rewards.models.waves import finite_sound

__all__ = ["loudness"]


@rule(modalities={"audio"}, range=(-200.0, 0.0))
def loudness(prompt: Prompt, output: Audio, *, target: float = -16.0, tolerance: NotNegative = 2.0) -> float | None:
    """Minus the loudness units beyond `tolerance` from `target`; silence counts as -70 LUFS, the standard's own gate.

    A sound shorter than one gating block (0.4 s) is NOT_APPLICABLE. -14 to -16 LUFS is usual for music online, -23 for
    broadcast (EBU R 128). Nothing is normalised: the sound is judged as it would be heard.

    Args:
        target: the wanted loudness, LUFS.
        tolerance: loudness units on both sides of it that cost nothing.
    """
    if tolerance < 0 or not math.isfinite(target):
        raise ConfigError(
            f"target {target} and tolerance {tolerance}: set a finite target and a tolerance of 0 or more."
        )
    measured = lufs(finite_sound(output), output.rate)
    return None if measured is None else -max(abs(measured - target) - tolerance, 0.0)
