"""Sounds of any rate, number of channels and length brought to what a generator makes; loudness is never changed.

| cut | what becomes of a sound that is longer than the target |
|---|---|
| `start` | its beginning |
| `random` | a stretch from anywhere, another one in each pass over the data |
| `windows` | all of it, in stretches that follow each other, each with the sound's caption |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.packages import need
from mmalign.core.tensor import Tensor

__all__ = ["REACH", "Cut", "SoundTarget", "at_rate", "converted", "in_channels", "stretch", "window_starts"]

Cut = Literal["start", "random", "windows"]

# torchaudio's "kaiser_best": 64 zero crossings; what passes above the new Nyquist frequency is below -90 dB.
_KAISER: dict[str, Any] = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
REACH = math.ceil(_KAISER["lowpass_filter_width"] / _KAISER["rolloff"])  # samples to each side, where none are dropped


@dataclass(frozen=True)
class SoundTarget:
    """What a generator makes: `rate` in Hz, `channels`, and `samples` of each at most; None: of any length."""

    rate: int
    channels: int
    samples: int | None = None


def at_rate(samples: Float[Tensor, "*any S"], rate: int, to: int) -> Float[Tensor, "*any s"]:
    """`samples` of `rate` Hz at `to` Hz: ceil(S · to / rate) of them, band-limited.

    Raises:
        MediaError: a rate below 1 Hz.
    """
    if rate < 1 or to < 1:
        raise MediaError(f"a sound of {rate} Hz cannot be resampled to {to} Hz.")
    if rate == to:
        return samples
    made: Tensor = need("torchaudio.functional").resample(samples, rate, to, **_KAISER)
    return made


def in_channels(samples: Float[Tensor, "*any C S"], channels: int) -> Float[Tensor, "*any c S"]:
    """`samples` in `channels` channels: where the number is another one, their mean, repeated."""
    if samples.shape[-2] == channels:
        return samples
    return samples.mean(-2, keepdim=True).expand(*samples.shape[:-2], channels, samples.shape[-1])


def window_starts(samples: int, length: int, least: float = 0.5) -> list[int]:
    """Where windows of `length` samples begin in a sound of `samples`; they follow each other from the start.

    A rest shorter than `least` of a window is left out, but for a sound that is no longer than one.
    """
    starts = list(range(0, max(samples, 1), length))
    if len(starts) > 1 and samples - starts[-1] < least * length:
        starts.pop()
    return starts


def stretch(samples: Float[Tensor, "*any S"], start: int, length: int | None) -> Float[Tensor, "*any s"]:
    """At most `length` samples from `start` on; all of them for None."""
    return samples[..., start:] if length is None else samples[..., start : start + length]


def converted(samples: Float[Tensor, "C S"], rate: int, target: SoundTarget) -> Float[Tensor, "c s"]:
    """A sound at the rate and in the channels of `target`, whole.

    It is mixed before it is resampled where that is less to resample; both are linear, so the order changes nothing.
    """
    return at_rate(in_channels(samples, target.channels).to(torch.float32), rate, target.rate)
