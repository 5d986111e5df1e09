"""Digests of what rows hold: texts, pictures, sounds, whole prompts; equal for equal values, in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt

__all__ = ["feed", "value_digest"]


def value_digest(value: object) -> bytes:
    """The SHA-256 of a value: 32 bytes."""
    digest = hashlib.sha256()
    feed(digest, value)
    return digest.digest()


@runtime_checkable
class Digest(Protocol):
    """What `hashlib.sha256` makes, whose type has no public name."""

    def update(self, data: bytes, /) -> None:
        """Take in further bytes."""
        ...


def feed(digest: Digest, value: object) -> None:
    """Every value with its type and length, so that no two different inputs give one stream of bytes."""
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous()
        data = (
            array.view(torch.uint8).numpy().tobytes() if array.numel() and array.ndim else repr(array.tolist()).encode()
        )
        digest.update(f"tensor {array.dtype} {tuple(array.shape)} ".encode() + data)
    elif isinstance(value, np.ndarray):  # whose repr leaves out the middle
        feed(digest, {"dtype": str(value.dtype), "values": value.tolist()})
    elif isinstance(value, Audio):
        feed(digest, {"samples": value.samples, "rate": value.rate, "mask": value.mask})
    elif isinstance(value, Prompt):
        turns = {"question": value.question} if value.converses else {}
        feed(digest, {"text": value.text, "media": dict(value.media), "meta": dict(value.meta), **turns})
    elif isinstance(value, Mapping):
        digest.update(f"map {len(value)} ".encode())
        for key in sorted(value, key=repr):
            feed(digest, repr(key))
            feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)} ".encode())
        for item in value:
            feed(digest, item)
    else:
        data = value if isinstance(value, bytes) else (value if isinstance(value, str) else repr(value)).encode()
        digest.update(f"{type(value).__name__} {len(data)} ".encode() + data)
