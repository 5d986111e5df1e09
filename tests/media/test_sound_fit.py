"""Resampling against closed forms and scipy; channels and windows against their definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from mmalign.core.errors import MediaError
from mmalign.media.sound_fit import SoundTarget, at_rate, converted, in_channels, stretch, window_starts

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]


@pytest.mark.parametrize("to", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("rate", RATES)
def test_a_tone_that_both_rates_hold_stays_that_tone(rate: int, to: int) -> None:
    made = at_rate(tone(440, rate, 0.5), rate, to)
    expected = tone(440, to, 0.5)
    assert made.shape[-1] == math.ceil(rate * 0.5 // 1 * to / rate)
    inner = slice(made.shape[-1] // 10, -made.shape[-1] // 10)  # at its ends the sound begins and stops
    assert (made[:, inner] - expected[:, : made.shape[-1]][:, inner]).abs().max() < 1e-3


def test_what_the_new_rate_cannot_hold_is_silenced_and_not_folded_down() -> None:
    made = at_rate(tone(10_000, 48_000, 0.5), 48_000, 16_000)
    assert made[:, 800:-800].abs().max() < 1e-3


@pytest.mark.parametrize(("rate", "to"), [(44_100, 48_000), (48_000, 16_000), (16_000, 44_100)])
def test_noise_of_one_band_is_resampled_as_scipy_resamples_it(rate: int, to: int) -> None:
    rng = np.random.default_rng(0)
    band = resample_poly(rng.normal(size=rate // 8), 8, 1)[: rate // 2] * 0.1  # nothing above an eighth of the rate
    divisor = math.gcd(rate, to)
    expected = resample_poly(band, to // divisor, rate // divisor, window=("kaiser", 12.0))
    made = at_rate(torch.from_numpy(band)[None].float(), rate, to)[0].numpy()
    inner = slice(2000, min(len(made), len(expected)) - 2000)
    assert np.abs(made[inner] - expected[inner]).max() < 5e-3


def test_equal_rates_leave_samples_alone_and_none_below_one_hertz() -> None:
    sound = torch.rand(2, 100)
    assert at_rate(sound, 44_100, 44_100) is sound
    with pytest.raises(MediaError, match="0 Hz cannot be resampled"):
        at_rate(sound, 0, 16_000)


def test_channels_are_mixed_by_their_mean_and_one_is_repeated() -> None:
    stereo = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    assert torch.equal(in_channels(stereo, 1), torch.tensor([[0.5, 0.25]]))
    assert torch.equal(in_channels(stereo[:1], 2), stereo[:1].repeat(2, 1))
    assert torch.equal(in_channels(torch.arange(6.0)[:, None], 2), torch.full((2, 1), 2.5))
    assert in_channels(stereo, 2) is stereo


def test_loudness_is_not_changed() -> None:
    loud = converted(tone(300, 44_100, 0.5, 1.7), 44_100, SoundTarget(32_000, 2))
    assert loud.shape == (2, 16_000)
    assert loud[:, 1000:-1000].abs().max() == pytest.approx(1.7, abs=0.01)


@given(st.integers(1, 10_000), st.integers(1, 3_000))
def test_windows_follow_each_other_and_lose_less_than_half_a_window(samples: int, length: int) -> None:
    starts = window_starts(samples, length)
    assert starts[0] == 0 and all(b - a == length for a, b in itertools.pairwise(starts))
    assert starts[-1] < samples
    assert samples - (starts[-1] + length) < length / 2


def test_a_stretch_ends_where_the_sound_does() -> None:
    sound = torch.arange(10.0)[None]
    assert stretch(sound, 6, 8).tolist() == [[6.0, 7.0, 8.0, 9.0]]
    assert stretch(sound, 2, None).shape == (1, 8)


def tone(pitch: float, rate: int, seconds: float, level: float = 0.5) -> torch.Tensor:
    """A sine (1, S)."""
    times = torch.arange(int(rate * seconds), dtype=torch.float64) / rate
    return (level * torch.sin(2 * math.pi * pitch * times))[None].float()
