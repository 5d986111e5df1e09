"""What a player is given sounds like what was made, and is small."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from mmalign.core.errors import MediaError
from mmalign.media.player import player_uri
from tests.typecheck import unchecked


def decoded(uri: str) -> tuple[np.ndarray, int]:
    kind, _, body = uri.partition(";base64,")
    assert kind == "data:audio/mpeg"
    return soundfile.read(io.BytesIO(base64.b64decode(body)), always_2d=True)


@pytest.mark.parametrize(
    ("channels", "rate", "played"), [(1, 8_000, 8_000), (2, 44_100, 44_100), (1, 10_000, 11_025), (6, 96_000, 48_000)]
)
def test_the_pitch_length_and_loudness_are_kept(channels: int, rate: int, played: int) -> None:
    time = np.arange(2 * rate) / rate
    tone = np.tile(0.5 * np.sin(2 * np.pi * 440 * time), (channels, 1))
    samples, at = decoded(player_uri(tone, rate))
    assert at == played and samples.shape[1] == min(channels, 2 if channels == 2 else 1)
    assert len(samples) / at == pytest.approx(2, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[:, 0]))
    assert np.fft.rfftfreq(len(samples), 1 / at)[spectrum.argmax()] == pytest.approx(440, abs=2)
    middle = samples[len(samples) // 4 : -len(samples) // 4, 0]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_twenty_seconds_of_stereo_are_small() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 20 * 44_100)) * 0.2
    assert len(player_uri(noise, 44_100)) < 450_000  # 4.7 million as WAV


def test_what_is_no_sound_is_refused() -> None:
    with unchecked(), pytest.raises(MediaError, match=r"expected sound \(C, S\)"):
        player_uri(np.zeros(10), 8_000)
    with pytest.raises(MediaError, match="contains NaN"):
        player_uri(np.full((1, 10), np.nan), 8_000)
