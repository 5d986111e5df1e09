"""Sound as a picture: what is heard when and how high, in decibels of full scale. Loudness is never evened out."""

from __future__ import annotations

import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.tensor import Tensor

__all__ = ["spectrogram"]

LOWEST = 50.0  # Hz, the bottom row; the top row is half the rate
FLOOR = -90.0  # dB below a sine at full scale: black
_INKS = ((0.02, 0.02, 0.07), (0.25, 0.11, 0.45), (0.75, 0.25, 0.42), (0.98, 0.63, 0.32), (1.0, 0.97, 0.80))
_WINDOW = 2048


def spectrogram(
    samples: Float[Tensor, "C S"], rate: int, height: int = 96, width: int = 320
) -> Float[Tensor, "3 height width"]:
    """A picture in [0, 1]: time to the right, pitch upwards in equal ratios, brightness in dB, mean over channels.

    The same sound at half the level is darker: pictures of one run can be compared. What is not finite is silence.

    Raises:
        MediaError: no samples, or not (C, S).
    """
    if samples.ndim != 2 or not samples.numel():
        raise MediaError(f"expected sound (C, S) with samples, got shape {tuple(samples.shape)}.")
    size = min(_WINDOW, max(16, rate // 16))
    wave = samples.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0)
    window = torch.hann_window(size)
    hop = max(1, wave.shape[1] // (2 * width))
    spectrum = torch.stft(wave, size, hop, window=window, pad_mode="constant", return_complex=True)
    power = (2 * spectrum.abs() / window.sum()).square().mean(0)  # 1 for a sine at full scale
    rows = LOWEST * (rate / 2 / LOWEST) ** torch.linspace(1, 0, height)
    place = (rows * size / rate).clamp(max=len(power) - 1)
    low = place.floor().long().clamp(max=len(power) - 2)
    share = (place - low)[:, None]
    power = (1 - share) * power[low] + share * power[low + 1]
    power = torch.nn.functional.interpolate(
        power[None, None], (height, width), mode="area" if power.shape[1] >= width else "nearest"
    )[0, 0]
    return _inked((1 - 10 * power.clamp(min=1e-12).log10() / FLOOR).clamp(0, 1))


def _inked(level: Tensor) -> Tensor:
    """Levels (H, W) in [0, 1] as colours from dark to light (3, H, W)."""
    inks = torch.tensor(_INKS)
    place = level * (len(inks) - 1)
    low = place.floor().long().clamp(max=len(inks) - 2)
    share = (place - low)[..., None]
    return ((1 - share) * inks[low] + share * inks[low + 1]).permute(2, 0, 1)
