"""Sound between files and tensors: float32 (C, S) in [-1, 1] and a rate in Hz; soundfile does the decoding."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.files import write_beside
from mmalign.core.protocols import Foreign
from mmalign.core.regular import read_regular, unreadable, written
from mmalign.core.tensor import Tensor
from mmalign.media.av_sound import SLACK, AvSound, can_read, is_ours, opened_by_av
from mmalign.media.bounds import BYTES, SAMPLES
from mmalign.media.containers import unread
from mmalign.media.kinds import SOUNDS

__all__ = [
    "SUFFIXES",
    "SoundShape",
    "audio_bytes",
    "decode_audio",
    "decode_part",
    "decode_samples",
    "part_shape",
    "read_audio",
    "read_samples",
    "sound_shape",
    "write_audio",
]

CONVERT = "ffmpeg -i FILE out.flac"
SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def decode_audio(data: bytes, name: str) -> tuple[Float[Tensor, "C S"], int]:
    """The sound in `data` as a tensor, and its rate; see `decode_samples`."""
    samples, rate = decode_samples(data, name)
    return torch.from_numpy(samples), rate


def decode_samples(data: bytes, name: str) -> tuple[Float[np.ndarray, "C S"], int]:
    """The sound in `data`, float32, and its rate; `name` says in errors where the bytes came from.

    The bytes decide the format (one of `kinds.SOUNDS`), not the name. Any rate, bit depth and number of channels; one
    sample is a sound.

    Raises:
        MediaError: empty, foreign, corrupt or truncated bytes, a file that would be read in part, no samples, more of
            them than `bounds.SAMPLES`, or samples that are not finite.
    """
    decoder = _decoder(data, name)
    with _opened(data, name) as file:
        decoder = "PyAV" if isinstance(file, AvSound) else decoder
        promised, rate = _promised(file, name), file.samplerate
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except Exception as error:
            raise MediaError(f"{name}: {decoder} could not decode its {len(data)} bytes: {_reason(error)}.") from None
    if not len(samples):
        raise MediaError(f"{name}: {decoder} found no samples in its {len(data)} bytes.")
    if fault := _missing(file, data, promised, len(samples)):
        raise MediaError(f"{name}: the file {fault}; copy or make it again, or convert it: {CONVERT}.")
    if bad := int((~np.isfinite(samples)).sum()):
        raise MediaError(f"{name}: {bad} of its {samples.size} samples are not finite.")
    return samples.T.copy(), int(rate)


EXACT = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC")  # a place in them is found to the sample


def part_shape(data: bytes, name: str) -> SoundShape | None:
    """What the header of a sound says of which a part can be decoded; None of other formats. Raises as sound_shape."""
    with _opened(data, name) as file:
        if file.format not in EXACT or "ADPCM" in file.subtype:
            return None
        return SoundShape(int(file.samplerate), int(file.channels), _promised(file, name))


def decode_part(data: bytes, name: str, begin: int, end: int) -> tuple[Float[np.ndarray, "C S"], int]:
    """Samples `begin` to `end` of a sound of one of the formats `EXACT`, and its rate; the others are not decoded.

    Raises:
        MediaError: as `decode_samples`, as far as the part and the file's structure tell.
    """
    decoder = _decoder(data, name)
    with _opened(data, name) as file:
        promised, rate = _promised(file, name), file.samplerate
        try:
            file.seek(begin)
            samples = file.read(end - begin, dtype="float32", always_2d=True)
        except Exception as error:
            raise MediaError(f"{name}: {decoder} could not decode its {len(data)} bytes: {_reason(error)}.") from None
    if not promised:
        raise MediaError(f"{name}: {decoder} found no samples in its {len(data)} bytes.")
    if fault := unread(data, promised, promised - (end - begin - len(samples))):
        raise MediaError(f"{name}: the file {fault}; copy or make it again, or convert it: {CONVERT}.")
    if bad := int((~np.isfinite(samples)).sum()):
        raise MediaError(f"{name}: {bad} of its {samples.size} samples are not finite.")
    return samples.T.copy(), int(rate)


def _missing(file: AvSound | Foreign, data: bytes, promised: int, decoded: int) -> str:
    if not isinstance(file, AvSound):
        return unread(data, promised, decoded)
    short = promised - decoded
    return f"is truncated: {short} of its {promised} samples are missing" if short > SLACK else ""


@dataclass(frozen=True)
class SoundShape:
    """What a sound's header says: Hz, channels, and samples of each."""

    rate: int
    channels: int
    samples: int


def sound_shape(source: bytes | Path, name: str) -> SoundShape:
    """The shape by the header alone; MediaError where there is no sound, or one of more than `bounds.SAMPLES`."""
    with _opened(source, name) as file:
        return SoundShape(int(file.samplerate), int(file.channels), int(_promised(file, name)))


def _decoder(data: bytes, name: str) -> str:
    import soundfile

    if not data:
        raise MediaError(f"{name}: the file is empty (0 bytes).")
    return f"soundfile {soundfile.__version__}"


def _opened(source: bytes | Path, name: str) -> Any:
    """An open `SoundFile` of one of the formats that are read."""
    import soundfile

    if isinstance(source, Path) and (why := unreadable(source, BYTES.most)):
        raise MediaError(f"{name}: {'the file ' if why.startswith('is empty') else ''}{why}.")
    size = f"{source.stat().st_size if isinstance(source, Path) else len(source)} bytes"
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Exception as error:  # foreign bytes
        if (other := opened_by_av(source)) is not None:
            return other
        if can_read() and is_ours(source):
            raise MediaError(
                f"{name}: PyAV finds no whole sound in its {size} (is it cut off, or a film?). Convert it: {CONVERT}."
            ) from None
        start = source[:8] if isinstance(source, bytes) else b""
        beginning = f" (they begin with {start!r})" if start else ""
        raise MediaError(
            f"{name}: soundfile {soundfile.__version__} could not decode its {size}{beginning}: {_reason(error)}; "
            f"read are {', '.join(SOUNDS)}{_more()}. Convert it: {CONVERT}."
        ) from None
    if file.format not in SOUNDS:
        file.close()
        raise MediaError(f"{name}: is {file.format}; read are {', '.join(SOUNDS)}. Convert it: {CONVERT}.")
    return file


def _more() -> str:
    """How further formats are read, where they are not yet."""
    return "" if can_read() else ", and M4A, AAC, WMA or WebM with PyAV (pip install av)"


def _promised(file: AvSound | Foreign, name: str) -> int:
    """Frames by the header, once they are found to fit."""
    if file.frames >= 2**62:
        raise MediaError(f"{name}: does not say how long it is (it was written to a pipe); convert it: {CONVERT}.")
    SAMPLES.require(file.frames * file.channels, name, "what its header claims")
    return int(file.frames)


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip(". \n") or "no reason given"


def read_audio(path: Path | str) -> tuple[Float[Tensor, "C S"], int]:
    """A sound file as a tensor (C, S) in [-1, 1], and Hz; see `read_samples`."""
    samples, rate = read_samples(path)
    return torch.from_numpy(samples), rate


def read_samples(path: Path | str) -> tuple[Float[np.ndarray, "C S"], int]:
    """A sound file (WAV, FLAC, OGG with Vorbis or Opus, MP3, AIFF, AU, CAF, W64) as samples (C, S) in [-1, 1], and Hz.

    With PyAV installed also M4A, AAC, WMA and WebM.

    Raises:
        MediaError: the file is missing, no regular one, unreadable, empty, too large or not sound; names it and the
            decoder.
    """
    name = written(path)
    try:
        return decode_samples(read_regular(path, BYTES.most), name)
    except MediaError:
        raise
    except ValueError as error:
        raise MediaError(f"{name}: {error}.") from None


def write_audio(samples: Float[Tensor, "C S"], rate: int, path: Path | str) -> None:
    """Write 16-bit sound (loudness untouched, clipped to [-1, 1]); the suffix decides the format; whole or absent."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(f"{path}: cannot write '{path.suffix}' sound; use one of {', '.join(sorted(SUFFIXES))}.")
    with write_beside(path) as beside:
        beside.write_bytes(audio_bytes(samples, rate, SUFFIXES[path.suffix.lower()]))


def audio_bytes(samples: Float[Tensor, "C S"], rate: int, kind: str = "WAV") -> bytes:
    """16-bit sound (clipped to [-1, 1]) as a file of a `kind` of `SUFFIXES`, in memory."""
    import soundfile

    if samples.ndim != 2:
        raise MediaError(f"expected sound (C, S), got shape {tuple(samples.shape)}.")
    if torch.isnan(samples).any():
        raise MediaError(f"sound of shape {tuple(samples.shape)} contains NaN; the generator or decoder diverged.")
    buffer = io.BytesIO()
    subtype = {} if kind in ("OGG", "MP3") else {"subtype": "PCM_16"}
    soundfile.write(buffer, samples.detach().float().cpu().clamp(-1, 1).T.numpy(), rate, format=kind, **subtype)
    return buffer.getvalue()
