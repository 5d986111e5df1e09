"""Texts that a model reads only in part: never in silence. The first is said, all are counted.

Whoever reads a text (a text tower, a judge, a generator's encoder) says here where it ends before the text does.
Whoever asks for numbers of a stretch of work (`counting_cuts`) is told how many texts that were.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mmalign.core.errors import MmalignWarning

_OPEN: ContextVar[tuple[Cuts, ...]] = ContextVar("cuts", default=())
_SAID: set[tuple[str, int]] = set()
_LOCK = threading.Lock()


@dataclass
class Cuts:
    """The different texts that were read in part, by who read them."""

    texts: set[tuple[str, str]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextLimit:
    """How much of a text is read: `room` of its `count(text)` tokens, those at its ends included.

    `reader` names the model for messages, `advice` what can be done.
    """

    reader: str
    count: Callable[[str], int]
    room: int
    advice: str = "shorten it"

    def note(self, text: str) -> None:
        """Say and count `text` if it is read in part."""
        if (tokens := self.count(text)) > self.room:
            note_cut(self.reader, text, tokens, self.room, self.advice)

    def summary(self, texts: Sequence[str]) -> str | None:
        """One sentence about those of `texts` that are read in part, None if all are read whole."""
        distinct = list(dict.fromkeys(texts))
        lengths = [(text, tokens) for text in distinct if (tokens := self.count(text)) > self.room]
        if not lengths:
            return None
        longest, tokens = max(lengths, key=lambda pair: pair[1])
        return (
            f"{self.reader} reads {self.room} tokens of a text, and {len(lengths)} of {len(distinct)} different "
            f"prompts are longer: their ends are not seen. The longest has {tokens}: '{brief(longest)}'. "
            f"{_sentence(self.advice)}"
        )


@contextmanager
def counting_cuts() -> Iterator[Cuts]:
    """Inside it, texts that are read in part in this thread are counted in what it gives."""
    cuts = Cuts()
    token = _OPEN.set((*_OPEN.get(), cuts))
    try:
        yield cuts
    finally:
        _OPEN.reset(token)


def note_cut(reader: str, text: str, tokens: int, room: int, advice: str = "shorten it") -> None:
    """Count a text of `tokens` tokens of which `room` are read; the first of a reader is a warning."""
    count_cut(reader, text)
    with _LOCK:
        first = (reader, room) not in _SAID
        _SAID.add((reader, room))
    if first:
        warnings.warn(
            f"{reader}: the last {tokens - room} of {tokens} tokens of '{brief(text)}' are cut; {advice}. Others that "
            "are cut are counted, not listed.",
            MmalignWarning,
            stacklevel=3,
        )


def count_cut(reader: str, text: str) -> None:
    """Count a text that was read in part, and say nothing: who calls this says it."""
    for cuts in _OPEN.get():
        cuts.texts.add((reader, text))


def brief(text: str) -> str:
    """Return the beginning of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}…"


def _sentence(advice: str) -> str:
    return f"{advice[:1].upper()}{advice[1:]}."
