"""How a text tower reads: its tokenizer, whose ids it was trained on, and how much of a text they hold; and the
features of texts, each distinct one encoded once, by itself, and kept.

By itself: arithmetic on batches of another size or another padding differs in the last bits. So a text's features are
the same bits whatever it is asked with, in whatever order, and in a resumed run, whose memory is empty.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float

from mmalign.core.cuts import TextLimit
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.loading.foreign import Tokenizer


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


def whole_length(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of an uncut text, those at its ends included, by a tokenizer of transformers."""
    return len(tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"])


@dataclass
class KeptTexts:
    """`encode([text], device) -> (1, D)` with a memory of unit rows; the oldest are forgotten first. Safe in threads.

    `limit` says and counts what is not read of a text; `most` texts are kept.
    """

    encode: Callable[[list[str], torch.device], Tensor]
    limit: TextLimit | None = None
    most: int = 8192
    _rows: OrderedDict[str, Tensor] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @without_gradient
    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Float[Tensor, "B D"]:
        """Unit features, float32, on `device`."""
        device, distinct = torch.device(device), list(dict.fromkeys(texts))
        with self._lock:
            rows_of = {text: self._rows[text] for text in distinct if text in self._rows}
        fresh = {text: self._row(text, device) for text in distinct if text not in rows_of}
        with self._lock:
            self._rows.update(fresh)
            while len(self._rows) > self.most:
                self._rows.popitem(last=False)
        rows_of |= fresh
        if self.limit is not None:
            for text in distinct:
                self.limit.note(text)
        return torch.stack([rows_of[text].to(device) for text in texts])

    def _row(self, text: str, device: torch.device) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return torch.nn.functional.normalize(self.encode([text], device).float(), dim=1)[0]
