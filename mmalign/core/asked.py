"""What servers were asked, counted: requests, retries, tokens. Whoever asks for numbers of a stretch of work gets them.

Who asks a server says here what that was; `counting_requests` adds it up, also of threads that were given its context.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["counting_requests", "note_requests"]

_OPEN: ContextVar[tuple[Counter[str], ...]] = ContextVar("asked", default=())
_LOCK = threading.Lock()


@contextmanager
def counting_requests() -> Iterator[Counter[str]]:
    """Inside it, what servers are asked is added to the counts that it gives."""
    counts: Counter[str] = Counter()
    token = _OPEN.set((*_OPEN.get(), counts))
    try:
        yield counts
    finally:
        _OPEN.reset(token)


def note_requests(counts: Mapping[str, int]) -> None:
    """Add `counts` to all that are open."""
    with _LOCK:
        for one in _OPEN.get():
            one.update(counts)
