"""That long work begins, and how far it is, said on standard error."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress


class Pace:
    """Says how many of all are done, at most every `seconds`; nothing of work that is short."""

    def __init__(self, done: str = "measured", seconds: float = 15.0) -> None:
        self.done, self.seconds, self.last = done, seconds, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Of `total` rows or files `done` are done."""
        if done < total and time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            with suppress(OSError):
                print(f"{self.done} {done} of {total}", file=sys.stderr, flush=True)


def starting(what: str) -> None:
    """Say what begins, before what takes seconds to import; of several processes the first does."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            print(f"{what} …", file=sys.stderr, flush=True)
