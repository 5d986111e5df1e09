"""Pictures of sound: tones stand at their pitch and time, levels are absolute, bad sound is drawn or refused."""

import itertools
import math

import pytest
import torch

from mmalign.core.errors import MediaError
from mmalign.media.spectrogram import FLOOR, LOWEST, spectrogram

RATE = 16_000


def tone(hertz: float, level: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)[None]


@pytest.mark.parametrize("hertz", [200.0, 997.0, 4000.0])
def test_a_tone_is_a_line_at_its_pitch(hertz: float) -> None:
    rows = spectrogram(tone(hertz), RATE, height=200).sum(0).mean(1)
    expected = (1 - math.log(hertz / LOWEST) / math.log(RATE / 2 / LOWEST)) * 199
    assert rows.argmax().item() == pytest.approx(expected, abs=4)


def test_time_runs_to_the_right() -> None:
    picture = spectrogram(torch.cat([torch.zeros(1, RATE), tone(500)], 1), RATE).sum((0, 1))
    assert picture.shape == (320,) and picture[:140].max() < picture[180:].min()


def test_levels_are_absolute_and_channels_are_averaged_in_power() -> None:
    """Full scale is the brightest ink, the floor the darkest; a tone in opposite phase does not cancel itself."""
    full, silent = spectrogram(tone(997), RATE), spectrogram(torch.zeros(2, RATE), RATE)
    assert full[:, :, 160].max() > 0.97 and torch.equal(silent.amax((1, 2)), silent.amin((1, 2)))
    quieter = [spectrogram(tone(997, 10 ** (db / 20)), RATE).sum(0).max() for db in (0, -20, -40, -60, FLOOR - 10)]
    assert all(a > b for a, b in itertools.pairwise(quieter)) and quieter[-1] == silent.sum(0).max()
    wave = tone(997, 0.1)
    assert torch.allclose(spectrogram(torch.cat([wave, -wave]), RATE), spectrogram(wave, RATE), atol=1e-4)


@pytest.mark.parametrize("length", [1, 7, 100_000])
def test_any_length_makes_one_size(length: int) -> None:
    picture = spectrogram(torch.full((1, length), float("nan")), RATE, height=40, width=50)
    assert picture.shape == (3, 40, 50) and picture.isfinite().all() and 0 <= picture.min() <= picture.max() <= 1


def test_no_sound_is_refused() -> None:
    with pytest.raises(MediaError, match=r"expected sound \(C, S\) with samples, got shape \(2, 0\)"):
        spectrogram(torch.zeros(2, 0), RATE)
