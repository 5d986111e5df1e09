"""Sounds that soundfile does not read (M4A, AAC, WMA, WebM …), by PyAV where it is installed (`pip install av`).

`AvSound` has those members of `soundfile.SoundFile` that are used, so that both are read alike.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from mmalign.media.bounds import SAMPLES

__all__ = ["SLACK", "AvSound", "can_read", "is_ours", "opened_by_av"]

# How files of ADTS, EBML (Matroska, WebM) and ASF (WMA) begin; MP4's first box is named behind its size.
_BEGINNINGS = (b"\xff\xf1", b"\xff\xf9", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")
SLACK = 4096  # samples: AAC's encoder delay and last block, which containers count differently


def can_read() -> bool:
    """Is PyAV here?"""
    return find_spec("av") is not None


class AvSound:
    """The one sound of a file, open; `frames` are what its header promises, at `samplerate` Hz."""

    format = "AV"

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.samplerate = int(stream.rate)
        self.channels = int(stream.channels)
        seconds = (
            float(stream.duration * stream.time_base)
            if stream.duration is not None
            else (container.duration or 0) / 1_000_000
        )
        self.frames = round(seconds * self.samplerate)

    def read(self, dtype: str = "float32", always_2d: bool = True) -> Float[np.ndarray, "S C"]:
        """All samples, in [-1, 1] where the file's own are integers. Raises MediaError beyond `bounds.SAMPLES`."""
        import av

        del always_2d  # they always are
        to_float = av.AudioResampler(format="fltp")
        pieces, count = [], 0
        for frame in self._container.decode(self._stream):
            for piece in to_float.resample(frame):
                pieces.append(piece.to_ndarray())
                count += pieces[-1].shape[1]
            SAMPLES.require(count * self.channels, "the sound", "what is decoded")
        pieces += [piece.to_ndarray() for piece in to_float.resample(None)]
        whole = np.concatenate(pieces, 1) if pieces else np.zeros((self.channels, 0), np.float32)
        return np.ascontiguousarray(whole.T.astype(dtype))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __enter__(self) -> AvSound:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _head(source: bytes | Path | io.BufferedIOBase) -> bytes:
    """The first bytes; an open file is left at its start."""
    if isinstance(source, bytes):
        return source[:8]
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(8)
    head: bytes = source.read(8)
    source.seek(0)
    return head


def is_ours(source: bytes | Path | Any) -> bool:
    """Does a container begin here that soundfile does not know?"""
    head = _head(source)
    return head.startswith(_BEGINNINGS) or head[4:8] == b"ftyp"


def opened_by_av(source: bytes | Path | Any) -> AvSound | None:
    """The sound in `source` (bytes, a path or a file at its start); None without PyAV, and for what is a film or none.

    Only containers that soundfile does not know are looked into: it notices damage to its own that FFmpeg passes over.
    A still picture beside the sound (the cover of an album) makes no film of it.
    """
    if not can_read() or not is_ours(source):
        return None
    import av

    av.logging.set_level(av.logging.PANIC)
    # Up to PyAV 18 a title in another encoding ends the opening, unless it may be ignored; from 19 on none is decoded.
    lenient: Any = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        container: Any = av.open(io.BytesIO(source) if isinstance(source, bytes) else source, **lenient)
    except (av.FFmpegError, OSError, ValueError):
        return None
    moving = [video for video in container.streams.video if not video.disposition & video.disposition.attached_pic]
    if moving or not container.streams.audio or not container.streams.audio[0].rate:
        container.close()
        return None
    return AvSound(container, container.streams.audio[0])
