"""The tokenizer of a text tower: ids as it was trained on them, and how much of a text they hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mmalign.core.cuts import TextLimit
from mmalign.core.tensor import Tensor


class Tokens:
    """`tokens(texts) -> {name: (B, T)}`, cut to `limit.room`; made without the tower's weights.

    One thread at a time: fast tokenizers keep how they cut and fill as a state, which every call sets.
    """

    def __init__(
        self, reader: str, made: Callable[[list[str]], dict[str, Tensor]], count: Callable[[str], int], room: int
    ) -> None:
        self._made, self._count, self._lock = made, count, threading.Lock()
        self.limit = TextLimit(reader, self._length, room)

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """Ids (and what goes with them) of B texts."""
        with self._lock:
            return self._made(texts)

    def _length(self, text: str) -> int:
        with self._lock:
            return self._count(text)


def whole_length(tokenizer: Any, text: str) -> int:
    """Tokens of an uncut text, those at its ends included, by a tokenizer of transformers."""
    return len(tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])
