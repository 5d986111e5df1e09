"""Sound between files and tensors: float32 (C, S) in [-1, 1] and a rate in Hz; soundfile does the decoding."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import MediaError
from mmalign.core.files import write_beside

__all__ = ["SUFFIXES", "decode_audio", "read_audio", "write_audio"]

SUFFIXES = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def decode_audio(data: bytes, name: str) -> tuple[Float[Tensor, "C S"], int]:
    """The sound in `data` and its rate; `name` says in errors where the bytes came from.

    The bytes decide the format, not the name. Any rate, bit depth and number of channels; one sample is a sound.

    Raises:
        MediaError: empty, foreign, corrupt or truncated bytes, no samples, or samples that are not finite.
    """
    import soundfile

    decoder = f"soundfile {soundfile.__version__}"
    if not data:
        raise MediaError(f"{name}: the file is empty (0 bytes).")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise MediaError(
            f"{name}: {decoder} could not decode its {len(data)} bytes: {str(error).strip('.')}."
        ) from None
    if not len(samples):
        raise MediaError(f"{name}: {decoder} found no samples in its {len(data)} bytes.")
    if lost := _lost(data, promised - len(samples)):
        raise MediaError(f"{name}: the file is truncated: {lost} are missing at its end; copy or make it again.")
    found = torch.from_numpy(samples.T.copy())
    if bad := int((~found.isfinite()).sum()):
        raise MediaError(f"{name}: {bad} of its {found.numel()} samples are not finite.")
    return found, int(rate)


def _lost(data: bytes, frames: int) -> str:
    """What is missing of a file that was cut off; "" if nothing is. The decoder itself reads on in silence."""
    if data[:4] == b"RIFF":
        start = 12
        while start + 8 <= len(data):
            size = int.from_bytes(data[start + 4 : start + 8], "little")
            held = len(data) - start - 8
            if data[start : start + 4] == b"data":
                # Writers to a pipe do not know the size and leave it at its largest.
                return f"{size - held} bytes" if held + 1 < size < 0x7FFFF000 else ""
            start += 8 + size + size % 2
    if data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        segments = data[last + 27 :][: data[last + 26]] if last + 26 < len(data) else b""
        whole = len(segments) > 0 and last + 27 + len(segments) + sum(segments) <= len(data)
        return "" if whole and data[last + 5] & 4 else "pages"  # 4 marks the last page
    # The count of an MP3 is rounded to whole blocks, with the encoder's delay.
    return f"{frames} of its samples" if frames > 4608 else ""


def read_audio(path: Path | str) -> tuple[Float[Tensor, "C S"], int]:
    """A WAV, FLAC, OGG or MP3 file as samples (C, S) in [-1, 1] and its rate in Hz.

    Raises:
        MediaError: the file is missing, unreadable, empty or not sound; names it and the decoder.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}).") from None
    return decode_audio(data, str(path))


def write_audio(samples: Float[Tensor, "C S"], rate: int, path: Path | str) -> None:
    """Write 16-bit sound (loudness untouched, clipped to [-1, 1]); the suffix decides the format; whole or absent."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(f"{path}: cannot write '{path.suffix}' sound; use one of {', '.join(sorted(SUFFIXES))}.")
    with write_beside(path) as beside:
        beside.write_bytes(_encoded(samples, rate, SUFFIXES[path.suffix.lower()]))


def _encoded(samples: Tensor, rate: int, kind: str) -> bytes:
    import soundfile

    if samples.ndim != 2:
        raise MediaError(f"expected sound (C, S), got shape {tuple(samples.shape)}.")
    if torch.isnan(samples).any():
        raise MediaError(f"sound of shape {tuple(samples.shape)} contains NaN; the generator or decoder diverged.")
    buffer = io.BytesIO()
    subtype = {} if kind in ("OGG", "MP3") else {"subtype": "PCM_16"}
    soundfile.write(buffer, samples.detach().float().cpu().clamp(-1, 1).T.numpy(), rate, format=kind, **subtype)
    return buffer.getvalue()
