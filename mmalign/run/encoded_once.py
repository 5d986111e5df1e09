"""Given outputs and their captions are encoded once: what the generator makes of them is kept for every later step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.core.encoded import EncodedStore
from mmalign.core.protocols import KeepsEncoded
from mmalign.data.intake import MediaOptions
from mmalign.data.row_kinds import kind_of_rows
from mmalign.run.build import Parts

__all__ = ["encoded_line", "encoded_store", "keep_encoded"]


def encoded_store(parts: Parts, items: Sequence[Any]) -> EncodedStore | None:
    """Where what is made of given outputs is kept, if the adapter keeps it, rows have them, and `data` allows it."""
    source = parts.source
    if not isinstance(source, MediaOptions) or not source.encoded_gib or kind_of_rows(items) == "prompts":
        return None
    return EncodedStore(int(source.encoded_gib * 2**30)) if isinstance(parts.adapter, KeepsEncoded) else None


def encoded_line(parts: Parts, items: Sequence[Any]) -> list[str]:
    """A sentence on where encodings are kept, how many there are, and the limit; [] where none are."""
    store = encoded_store(parts, items)
    return [] if store is None else [f"encoded once: {store.summary()} (data.encoded_gib; 0 keeps nothing)."]


def keep_encoded(parts: Parts, items: Sequence[Any]) -> None:
    """Let the loaded adapter keep what it encodes.

    A random stretch of a sound hardly ever comes again: with `data.cut: random` captions alone are kept.
    """
    source = parts.source
    if (store := encoded_store(parts, items)) is not None and isinstance(parts.adapter, KeepsEncoded):
        parts.adapter.keep_encoded(store, media=getattr(source, "cut", "start") != "random")
