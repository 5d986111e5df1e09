"""Pictures and sounds that stand in a cell itself: as text in base64, as a data URL, or as samples that were decoded.

| cell | what it is |
|---|---|
| "data:image/png;base64,iVBORw0…" | the bytes behind the comma |
| "iVBORw0KGgoAAAANSUhEUgAA…" | bytes in base64, where they begin as a picture or a sound does |
| {"array": [0.1, …], "sampling_rate": 16000} | samples of one channel, or [channel][sample], in [-1, 1] |
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mmalign.core.errors import DataError
from mmalign.core.types import Audio
from mmalign.media.bounds import SAMPLES

__all__ = ["bytes_in_text", "given_samples", "holds_samples", "samples_digest"]

_LEAST = 64  # letters: no picture or sound is shorter
#: How the formats begin, in base64: PNG, JPEG, GIF, RIFF (WebP, WAV), FLAC, Ogg, ID3 and MPEG.
_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGODdh", "R0lGODlh", "UklGR", "ZkxhQ", "T2dnU", "SUQz", "//s", "//u", "//M")


def bytes_in_text(text: str) -> bytes | None:
    """Return the bytes that a text holds in base64; None of all others, names of files among them."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            return None
    elif len(text) < _LEAST or not text.startswith(_BEGINNINGS):
        return None
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def holds_samples(cell: object) -> bool:
    """Is it a sound that was decoded, as the `datasets` library gives it?"""
    return isinstance(cell, Mapping) and "array" in cell and "sampling_rate" in cell


def samples_digest(cell: Any) -> bytes:
    """Return a hash of such a sound, equal for equal ones."""
    return hashlib.sha256(repr((cell["sampling_rate"], cell["array"])).encode()).digest()


def given_samples(cell: Any, place: str) -> Audio | None:
    """Return the sound (1, C, S) of such a cell; None of another.

    Raises:
        DataError: samples that are none, or not finite, or a rate that is none.
    """
    if not holds_samples(cell):
        return None
    rate = cell["sampling_rate"]
    try:
        samples = np.atleast_2d(np.asarray(cell["array"], dtype=np.float32))
    except (TypeError, ValueError):
        raise DataError(f"{place}: 'array' does not hold samples, or channels of different lengths.") from None
    if samples.ndim != 2 or not samples.size or not np.isfinite(samples).all():
        raise DataError(f"{place}: 'array' must hold finite samples, [sample] or [channel][sample].")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate != rate or not 1 <= rate < 2**31:
        raise DataError(f"{place}: 'sampling_rate' is {rate!r}; expected Hz.")
    SAMPLES.require(samples.size, place, "the sound")
    return Audio(torch.from_numpy(samples)[None], int(rate))
