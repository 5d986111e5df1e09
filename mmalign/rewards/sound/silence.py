"""How much of a sound is silent: a second of music looped or padded looks full to encoders."""

from __future__ import annotations

from mmalign.core.types import Audio, Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.models.waves import finite_sound, frame_levels

__all__ = ["silence"]


@rule(modalities={"audio"}, range=(-1.0, 0.0))
def silence(prompt: Prompt, output: Audio, *, threshold: float = -60.0) -> float:
    """Minus the share of 50 ms frames whose level (RMS over all channels, dB of full scale) is below `threshold`.

    Args:
        threshold: dB of full scale.
    """
    return -float((frame_levels(finite_sound(output), output.rate) < threshold).float().mean())
