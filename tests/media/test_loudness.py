"""Loudness against the standard's own coefficients and tones, and against torchaudio where it does not clip."""

import math

import pytest
import torch

from mmalign.core.errors import MediaError
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
    with pytest.raises(MediaError, match="1 to 8 channels, whose places are known; these are 9"):
        lufs(sine(-20, 1).expand(9, -1), 48_000)
    surround = lufs(sine(-20, 1) * torch.tensor([[0.0], [0], [0], [1], [0]]), 48_000)
    assert surround == pytest.approx(lufs(sine(-20, 1), 48_000) + 10 * math.log10(1.41), abs=1e-6)


def test_surround_is_weighed_by_channel_and_low_effects_are_not_heard() -> None:
    """EBU Tech 3341, case 6: -28 dBFS left and right, -24 centre, -30 surrounds read -23 LUFS, in 5.0 and in 5.1."""
    levels = {"left": -28, "right": -28, "centre": -24, "low": 0, "left surround": -30, "right surround": -30}
    channels = {name: sine(level, 3)[0] for name, level in levels.items()}
    surround = torch.stack(list(channels.values()))
    without = torch.stack([wave for name, wave in channels.items() if name != "low"])
    assert lufs(without, 48_000) == pytest.approx(-23, abs=0.1)
    assert lufs(surround, 48_000) == pytest.approx(lufs(without, 48_000), abs=1e-9)


def test_channels_behind_count_as_those_before() -> None:
    tone = sine(-20, 1)
    level = lufs(tone, 48_000)
    for channels, sides in ((4, (2, 3)), (7, (5, 6)), (8, (6, 7))):
        for at in range(channels):
            one = torch.zeros(channels, tone.shape[1], dtype=tone.dtype)
            one[at] = tone[0]
            low = channels > 5 and at == 3
            expected = GATE if low else level + (10 * math.log10(1.41) if at in sides else 0)
            assert lufs(one, 48_000) == pytest.approx(expected, abs=1e-6), (channels, at)
