"""Sounds and pictures as they come from other programs and from accidents, as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from PIL import Image

RATE = 8_000


def sound(kind: str = "WAV", seconds: float = 2.0, rate: int = RATE, channels: int = 1, **options: Any) -> bytes:
    """Noise that fades, so that a variable bit rate varies."""
    rng, count = np.random.default_rng(0), int(seconds * rate)
    samples = rng.standard_normal((count, channels)) * 0.2 * np.linspace(1, 0, max(count, 1))[:count, None] ** 3
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), rate, format=kind, **options)
    return buffer.getvalue()


def mp3_without_count(seconds: float = 20.0) -> bytes:
    """An MP3 of variable bit rate whose first frame, which counts the others, was taken off."""
    whole = sound("MP3", seconds, 44_100, bitrate_mode="VARIABLE", compression_level=0.9)
    assert b"Xing" in whole[:200]
    return whole[whole.index(b"\xff\xfb", 4) :]


def wav_of_size(size: int) -> bytes:
    """A WAV whose header says that its sound has `size` bytes."""
    data = bytearray(sound())
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    return bytes(data)


def flac_of_samples(count: int) -> bytes:
    """A FLAC whose header claims `count` samples, at most 2^36 - 1."""
    data = bytearray(sound("FLAC"))
    fields = int.from_bytes(data[18:26], "big")  # rate, channels, bits, samples
    data[18:26] = (fields >> 36 << 36 | count).to_bytes(8, "big")
    return bytes(data)


def picture(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (6, 4), **options: Any) -> bytes:
    """A plain picture of some mode."""
    return encoded(Image.new(mode, size), kind, **options)


def png_of_size(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of this size."""
    import zlib

    data = bytearray(picture())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture of Pillow's as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
