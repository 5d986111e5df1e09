"""Given outputs and their captions are encoded once: what the generator makes of them is kept for every later step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.core.encoded import EncodedStore
from mmalign.core.protocols import KeepsEncoded
from mmalign.data.intake import MediaOptions
from mmalign.data.row_kinds import kind_of_rows
from mmalign.run.build import Parts

__all__ = ["keep_encoded"]


def keep_encoded(parts: Parts, items: Sequence[Any]) -> None:
    """Let the loaded adapter keep what it encodes, if rows come with outputs and `data.encoded_gib` allows it.

    A random stretch of a sound hardly ever comes again: with `data.cut: random` captions alone are kept.
    """
    source = parts.source
    if not isinstance(source, MediaOptions) or not source.encoded_gib or kind_of_rows(items) == "prompts":
        return
    if isinstance(parts.adapter, KeepsEncoded):
        store = EncodedStore(int(source.encoded_gib * 2**30))
        parts.adapter.keep_encoded(store, media=source.cut != "random")
