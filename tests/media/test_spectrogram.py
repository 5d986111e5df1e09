"""Pictures of sound: tones stand at their pitch and time, levels are absolute, bad sound is drawn or refused."""

import itertools
import math

import numpy as np
import pytest
import torch

from mmalign.core.errors import MediaError
from mmalign.media.spectrogram import _INKS, FLOOR, LOWEST, spectrogram

RATE = 16_000


def tone(hertz: float, level: float = 1.0, seconds: float = 1.0) -> np.ndarray:
    return level * np.sin(2 * math.pi * hertz * np.arange(int(seconds * RATE)) / RATE)[None]


@pytest.mark.parametrize("hertz", [200.0, 997.0, 4000.0])
def test_a_tone_is_a_line_at_its_pitch(hertz: float) -> None:
    rows = spectrogram(tone(hertz), RATE, height=200).astype(float).sum(0).mean(1)
    expected = (1 - math.log(hertz / LOWEST) / math.log(RATE / 2 / LOWEST)) * 199
    assert rows.argmax() == pytest.approx(expected, abs=4)


def test_time_runs_to_the_right() -> None:
    picture = spectrogram(np.concatenate([np.zeros((1, RATE)), tone(500)], 1), RATE).astype(float).sum((0, 1))
    assert picture.shape == (320,) and picture[:140].max() < picture[180:].min()


def test_levels_are_absolute_and_channels_are_averaged_in_power() -> None:
    """Full scale is the brightest ink, the floor the darkest; a tone in opposite phase does not cancel itself."""
    full, silent = spectrogram(tone(997), RATE), spectrogram(np.zeros((2, RATE)), RATE)
    assert full[:, :, 160].max() > 0.97 * 255 and np.array_equal(silent.max((1, 2)), silent.min((1, 2)))
    levels = (0, -20, -40, -60, FLOOR - 10)
    quieter = [spectrogram(tone(997, 10 ** (db / 20)), RATE).astype(int).sum(0).max() for db in levels]
    assert all(a > b for a, b in itertools.pairwise(quieter)) and quieter[-1] == silent.astype(int).sum(0).max()
    wave = tone(997, 0.1)
    assert np.array_equal(spectrogram(np.concatenate([wave, -wave]), RATE), spectrogram(wave, RATE))


@pytest.mark.parametrize("length", [1, 7, 100_000])
def test_any_length_makes_one_size(length: int) -> None:
    picture = spectrogram(np.full((1, length), np.nan), RATE, height=40, width=50)
    assert picture.shape == (3, 40, 50) and picture.dtype == np.uint8
    assert np.array_equal(picture, spectrogram(np.zeros((1, length)), RATE, height=40, width=50))


def test_no_sound_is_refused() -> None:
    with pytest.raises(MediaError, match=r"expected sound \(C, S\) with samples, got shape \(2, 0\)"):
        spectrogram(np.zeros((2, 0)), RATE)


def by_torch(samples: torch.Tensor, rate: int, height: int, width: int) -> np.ndarray:
    """The same picture by torch's own transform and interpolation, in [0, 255]."""
    size = min(2048, max(16, rate // 16))
    window = torch.hann_window(size, dtype=samples.dtype)
    hop = max(1, samples.shape[1] // (2 * width))
    spectrum = torch.stft(samples, size, hop, window=window, pad_mode="constant", return_complex=True)
    power = (2 * spectrum.abs() / window.sum()).square().mean(0)
    place = LOWEST * (rate / 2 / LOWEST) ** torch.linspace(1, 0, height, dtype=samples.dtype) * size / rate
    place = place.clamp(max=len(power) - 1)
    low = place.floor().long().clamp(max=len(power) - 2)
    power = torch.lerp(power[low], power[low + 1], (place - low)[:, None])
    mode = "area" if power.shape[1] >= width else "nearest"
    power = torch.nn.functional.interpolate(power[None, None], (height, width), mode=mode)[0, 0]
    level = (1 - 10 * power.clamp(min=1e-12).log10() / FLOOR).clamp(0, 1).numpy()
    places = np.linspace(0, 1, len(_INKS))
    return 255 * np.stack([np.interp(level, places, [ink[channel] for ink in _INKS]) for channel in range(3)])


@pytest.mark.parametrize(
    ("rate", "length", "channels"), [(16_000, 16_000, 1), (44_100, 30_001, 2), (11_025, 5_000, 1), (8_000, 100, 2)]
)
def test_it_is_what_torch_computes(rate: int, length: int, channels: int) -> None:
    rng = np.random.default_rng(length)
    time = np.arange(length) / rate
    samples = 0.4 * np.sin(2 * np.pi * (300 + 900 * time) * time) + 0.02 * rng.normal(size=(channels, length))
    expected = by_torch(torch.from_numpy(samples), rate, 96, 320)
    assert np.abs(spectrogram(samples, rate) - expected).max() < 0.51
    single = spectrogram(samples.astype(np.float32), rate)
    assert np.abs(single.astype(int) - expected).max() < 1.01
