"""Sounds in containers that soundfile does not know, against the tone that was put in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmalign.core.errors import MediaError
from mmalign.media import av_sound
from mmalign.media.audio import decode_samples, read_audio, sound_shape
from mmalign.media.kinds import kind_of_data, kind_of_file

KINDS = {"ipod": "aac", "adts": "aac", "matroska": "aac", "webm": "libopus", "mp4": "aac", "asf": "wmav2"}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tone_comes_back(kind: str, channels: int, tmp_path: Path) -> None:
    data = encoded(kind, 2.0, channels)
    samples, rate = decode_samples(data, "x")
    assert (rate, len(samples)) == (48_000, channels)
    assert abs(samples.shape[1] - 96_000) < av_sound.SLACK
    shape = sound_shape(data, "x")
    assert (shape.rate, shape.channels) == (48_000, channels) and abs(shape.samples - 96_000) < av_sound.SLACK
    middle = samples[:, 30_000:62_768]
    spectrum = np.abs(np.fft.rfft(middle[0] * np.hanning(32_768)))
    assert spectrum.argmax() * 48_000 / 32_768 == pytest.approx(440, abs=2)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.05)
    (tmp_path / "x").write_bytes(data)
    assert kind_of_data(data) == kind_of_file(tmp_path / "x") == "audio"
    assert read_audio(tmp_path / "x")[0].shape == samples.shape


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_file_is_refused(kind: str) -> None:
    data = encoded(kind, 4.0)
    with pytest.raises(MediaError, match=r"x: .*(truncated|no whole sound|could not decode)"):
        decode_samples(data[: len(data) // 2], "x")


def test_a_film_is_no_sound() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert kind_of_data(buffer.getvalue()) is None
    with pytest.raises(MediaError, match=r"x: PyAV finds no whole sound .*a film\?"):
        decode_samples(buffer.getvalue(), "x")


def test_without_pyav_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_sound, "find_spec", lambda name: None)
    with pytest.raises(MediaError, match=r"x: .*M4A, AAC, WMA or WebM with PyAV \(pip install av\)"):
        decode_samples(encoded("ipod", 1.0), "x")


def test_samples_are_bounded_by_the_header_and_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMALIGN_MAX_SAMPLES", "20000")
    for kind in ("ipod", "adts"):
        with pytest.raises(MediaError, match="at most 20,000 are read"):
            decode_samples(encoded(kind, 2.0), "x")


def encoded(kind: str, seconds: float, channels: int = 1, rate: int = 48_000) -> bytes:
    """A tone of 440 Hz, of amplitude 0.5, in a container."""
    buffer, layout = io.BytesIO(), "mono" if channels == 1 else "stereo"
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream(KINDS[kind], rate=rate, layout=layout, bit_rate=96_000)
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        frame = av.AudioFrame.from_ndarray(np.tile(wave.astype(np.float32), (channels, 1)), "fltp", layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue()
