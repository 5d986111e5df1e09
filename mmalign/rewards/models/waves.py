"""Sound as models take it: one channel, one rate, fixed windows. Nothing is random and no row sees another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.packages import need
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio

Fill = Literal["repeatpad", "repeat", "pad"]


def sounding(audio: Audio, row: int) -> Float[Tensor, "C S"]:
    """What row `row` holds up to the end of its mask."""
    samples = audio.samples[row]
    if audio.mask is None:
        return samples
    audible = audio.mask[row].nonzero()
    return samples[:, : int(audible[-1]) + 1 if len(audible) else 0]


def channelled(audio: Audio, rate: int, channels: int) -> list[Float[Tensor, "_ _"]]:
    """Every row with `channels` channels at `rate` Hz, with gradient; without samples where one is not finite.

    Other numbers of channels are mixed to one first, and that one repeated.
    """
    rows = []
    for row in range(len(audio)):
        samples = sounding(audio, row).float()
        if not bool(samples.detach().isfinite().all()):
            samples = samples[:, :0]
        if len(samples) != channels:
            samples = samples.mean(0, keepdim=True).expand(channels, -1)
        rows.append(resampled(samples, audio.rate, rate))
    return rows


def waves(audio: Audio, rate: int) -> list[Float[Tensor, " _"]]:
    """`channelled` with one channel, as waves."""
    return [row[0] for row in channelled(audio, rate, 1)]


def resampled(samples: Float[Tensor, "*C S"], old: int, new: int) -> Float[Tensor, "*C s"]:
    """Windowed-sinc resampling (torchaudio's default, Hann of width 6), with gradient."""
    if old == new or not samples.shape[-1]:
        return samples
    return _torchaudio().resample(samples, old, new)


@cache
def _torchaudio() -> ModuleType:
    return need("torchaudio.functional")


def filled(wave: Float[Tensor, " S"], length: int, fill: Fill = "repeatpad") -> Float[Tensor, " L"]:
    """A shorter wave brought to `length`: repeated whole times and padded with silence, repeated and cut, or padded."""
    times = length // len(wave)
    if fill == "repeat":
        return wave.repeat(times + 1)[:length]
    whole = wave.repeat(times) if fill == "repeatpad" else wave
    return torch.nn.functional.pad(whole, (0, length - len(whole)))


def windows(wave: Float[Tensor, " S"], length: int, hop: int, fill: Fill = "repeatpad") -> Float[Tensor, "W L"]:
    """Windows every `hop` samples, the last flush with the end. A shorter wave is filled, an empty one has none."""
    if not len(wave):
        return wave.new_zeros(0, length)
    if len(wave) <= length:
        return filled(wave, length, fill)[None]
    last = len(wave) - length
    return torch.stack([wave[start : start + length] for start in [*range(0, last, hop), last]])


def encode_windows(
    encode: Callable[[Tensor], Tensor], pieces: Sequence[Float[Tensor, "_ L"]], at_once: int = 32
) -> list[Float[Tensor, "_ D"]]:
    """`encode` of every row's windows, `at_once` windows a call whatever row they are of; rows of none stay empty."""
    every = torch.cat(list(pieces))
    if not len(every):  # an encoder says how wide its rows are only by an example
        with torch.no_grad():
            return [encode(every.new_zeros(1, every.shape[1]))[:0] for _ in pieces]
    features = torch.cat([encode(part) for part in every.split(at_once)])
    return list(features.split([len(piece) for piece in pieces]))


def means(frames: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B D"]:
    """The mean of every row's frames; NaN for a row of none, which says that it could not be embedded."""
    features = max((frame.shape[1] for frame in frames), default=0)
    return torch.stack([f.mean(0) if len(f) else f.new_full((features,), float("nan")) for f in frames])


def mean_and_std(frames: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B 2*D"]:
    """The mean and the standard deviation of every row's frames, side by side; NaN for a row of none."""
    deviations = [(f - f.mean(0)).square().mean(0, keepdim=True).add(1e-12).sqrt() if len(f) else f for f in frames]
    return torch.cat([means(frames), means(deviations)], dim=1)


def finite_sound(audio: Audio) -> Float[Tensor, "C S"]:
    """What the one row of `audio` holds. Raises MediaError where that is nothing, or not finite."""
    sound = sounding(audio, 0).float()
    if not sound.numel() or not bool(sound.isfinite().all()):
        raise MediaError(
            "the sound is empty." if not sound.numel() else "the sound contains values that are not finite."
        )
    return sound


def frame_levels(sound: Float[Tensor, "C S"], rate: int, seconds: float = 0.05) -> Float[Tensor, " F"]:
    """Level of consecutive frames, dB of full scale, RMS over all channels; the last frame may be short."""
    frames = sound.double().square().mean(0).split(max(round(seconds * rate), 1))
    return torch.stack([frame.mean() for frame in frames]).clamp_min(1e-20).log10() * 10
