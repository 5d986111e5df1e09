"""Loudness against the standard's own coefficients and tones, and against torchaudio where it does not clip."""

import math

import pytest
import torch

from mmalign.media.loudness import GATE, k_weighting, lufs


def sine(decibels: float, seconds: float, rate: int = 48_000, hertz: float = 997.0) -> torch.Tensor:
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    return (10 ** (decibels / 20) * torch.sin(2 * math.pi * hertz * time))[None]


def test_filters_at_48_khz_are_the_standards_tables() -> None:
    """ITU-R BS.1770-4, tables 1 and 2."""
    (b, a), (high_b, high_a) = k_weighting(48_000)
    assert b == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-9)
    assert a == pytest.approx([1.0, -1.69065929318241, 0.73248077421585], abs=1e-9)
    assert high_b == [1.0, -2.0, 1.0]
    assert high_a == pytest.approx([1.0, -1.99004745483398, 0.99007225036621], abs=1e-9)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_tones_of_known_loudness(rate: int) -> None:
    """Full scale in one channel reads -3.01; EBU Tech 3341 cases 1, 3: stereo at -23 dBFS, quiet parts gated."""
    assert lufs(sine(0, 2, rate), rate) == pytest.approx(-3.01, abs=0.1)
    stereo = sine(-23, 6, rate).expand(2, -1)
    assert lufs(stereo, rate) == pytest.approx(-23, abs=0.1)
    quiet = sine(-36, 1.5, rate).expand(2, -1)
    assert lufs(torch.cat([quiet, stereo, quiet], 1), rate) == pytest.approx(-23, abs=0.3)
    assert lufs(torch.cat([stereo, 0 * quiet, 0 * quiet], 1), rate) == pytest.approx(-23, abs=0.3)


def test_equal_to_torchaudio_far_from_full_scale() -> None:
    from torchaudio.functional import loudness

    noise = 0.02 * torch.randn(2, 96_000, generator=torch.Generator().manual_seed(0))
    assert lufs(noise, 48_000) == pytest.approx(float(loudness(noise, 48_000)), abs=0.15)


def test_silence_short_and_many_channels() -> None:
    assert lufs(torch.zeros(1, 48_000), 48_000) == GATE
    assert lufs(sine(-3, 0.39), 48_000) is None
    assert lufs(sine(-20, 1).expand(9, -1), 48_000) == pytest.approx(lufs(sine(-20, 1), 48_000), abs=1e-6)
    surround = lufs(sine(-20, 1) * torch.tensor([[0.0], [0], [0], [1], [0]]), 48_000)
    assert surround == pytest.approx(lufs(sine(-20, 1), 48_000) + 10 * math.log10(1.41), abs=1e-6)
