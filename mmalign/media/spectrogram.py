"""Sound as a picture: what is heard when and how high, in decibels of full scale. Loudness is never evened out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from mmalign.core.errors import MediaError

__all__ = ["spectrogram"]

LOWEST = 50.0  # Hz, the bottom row; the top row is half the rate
FLOOR = -90.0  # dB below a sine at full scale: black
_INKS = ((0.02, 0.02, 0.07), (0.25, 0.11, 0.45), (0.75, 0.25, 0.42), (0.98, 0.63, 0.32), (1.0, 0.97, 0.80))
_WINDOW = 2048


def spectrogram(
    samples: Float[np.ndarray, "C S"], rate: int, height: int = 96, width: int = 320
) -> UInt8[np.ndarray, "3 height width"]:
    """A picture: time to the right, pitch upwards in equal ratios, brightness in dB, mean over channels.

    The same sound at half the level is darker: pictures of one run can be compared. What is not finite is silence.

    Raises:
        MediaError: no samples, or not (C, S).
    """
    if samples.ndim != 2 or not samples.size:
        raise MediaError(f"expected sound (C, S) with samples, got shape {tuple(samples.shape)}.")
    wave = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    size = min(_WINDOW, max(16, rate // 16))
    power = _power(wave, size, hop=max(1, wave.shape[1] // (2 * width)))
    rows = LOWEST * (rate / 2 / LOWEST) ** np.linspace(1, 0, height)
    power = _resized(_between(power, rows * size / rate), width)
    level = (1 - 10 * np.log10(power.clip(min=1e-12)) / FLOOR).clip(0, 1)
    inks = _between(np.array(_INKS), level.ravel() * (len(_INKS) - 1)).reshape(*level.shape, 3)
    return (inks * 255).round().astype(np.uint8).transpose(2, 0, 1)


def _power(wave: Float[np.ndarray, "C S"], size: int, hop: int) -> Float[np.ndarray, "K F"]:
    """Power of K = size/2 + 1 frequencies in F = 1 + S // hop frames around every `hop`-th sample, mean over channels.

    1 is a sine at full scale. Windows are periodic Hann; the sound is silent before and after.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    padded = np.pad(wave, ((0, 0), (size // 2, size // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    spectrum = np.fft.rfft(frames * window, axis=2)
    return np.square(2 * np.abs(spectrum) / window.sum()).mean(0).T


def _between(values: Float[np.ndarray, " N *rest"], places: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M *rest"]:
    """`values` at fractional `places`, linear between neighbours; what lies outside has the nearest end's value."""
    places = places.clip(0, len(values) - 1)
    low = places.astype(int).clip(max=len(values) - 2)
    share = (places - low).reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[low] + share * values[low + 1]


def _resized(power: Float[np.ndarray, "H F"], width: int) -> Float[np.ndarray, "H width"]:
    """The F frames as `width` columns: the mean of those that a column covers, or the nearest where there are fewer."""
    count = power.shape[1]
    if count < width:
        return power[:, np.arange(width) * count // width]
    edges = [(i * count // width, -(-(i + 1) * count // width)) for i in range(width)]
    return np.stack([power[:, start:end].mean(1) for start, end in edges], 1)
