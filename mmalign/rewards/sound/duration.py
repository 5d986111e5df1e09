"""Whether a sound lasts as long as it should: up to where it is last heard."""

from __future__ import annotations

from mmalign.core.errors import ConfigError
from mmalign.core.options import NotNegative
from mmalign.core.types import Audio, Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.models.waves import finite_sound, frame_levels

__all__ = ["duration"]


@rule(modalities={"audio"}, range=(float("-inf"), 0.0))
def duration(prompt: Prompt, output: Audio, *, seconds: NotNegative = 0.0, threshold: float = -60.0) -> float | None:
    """Minus |heard - wanted| / wanted; wanted is `prompt.meta["seconds"]`, or the option; neither: NOT_APPLICABLE.

    Heard ends with the last 50 ms frame above `threshold` dB of full scale.

    Args:
        seconds: the wanted length of prompts without a column `seconds`; 0 is none.
        threshold: dB of full scale; quieter frames are silence.
    """
    requested = prompt.meta.get("seconds")
    wanted = seconds if requested is None else float(requested)
    if wanted < 0:
        raise ConfigError(f"seconds: {wanted} is no duration; set more than 0, or give meta.seconds per prompt.")
    if not wanted:
        return None
    sound = finite_sound(output)
    loud = (frame_levels(sound, output.rate) >= threshold).nonzero()
    sound_format = min((int(loud[-1]) + 1) * 0.05, sound.shape[1] / output.rate) if len(loud) else 0.0
    return -abs(sound_format - wanted) / wanted
