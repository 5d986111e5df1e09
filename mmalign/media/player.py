"""A sound inside a string that an HTML player plays without a file: MP3, played everywhere, a sixteenth of a WAV."""

from __future__ import annotations

import base64
import io
from math import gcd

import numpy as np
from jaxtyping import Float

from mmalign.core.errors import MediaError

__all__ = ["player_uri"]

RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz that MPEG layer III knows
QUALITY = 0.7  # of 0 (best) to 1 (smallest): about 85 kbit/s of stereo


def player_uri(samples: Float[np.ndarray, "C S"], rate: int) -> str:
    """A data URI of the sound (in [-1, 1], clipped to it) for listening, not for measuring.

    Rates that MP3 does not have become the next higher one (48 kHz at most); more than two channels become their mean.

    Raises:
        MediaError: another shape, or NaN.
    """
    import soundfile

    if samples.ndim != 2:
        raise MediaError(f"expected sound (C, S), got shape {tuple(samples.shape)}.")
    if np.isnan(samples).any():
        raise MediaError(f"sound of shape {tuple(samples.shape)} contains NaN; the generator or decoder diverged.")
    sound = samples if len(samples) <= 2 else samples.mean(0, keepdims=True)
    played = next((each for each in RATES if each >= rate), RATES[-1])
    values = sound.T
    if played != rate:
        from scipy.signal import resample_poly

        shared = gcd(played, rate)
        values = resample_poly(values, played // shared, rate // shared)
    buffer = io.BytesIO()
    soundfile.write(buffer, values.clip(-1, 1), played, format="MP3", compression_level=QUALITY)
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
