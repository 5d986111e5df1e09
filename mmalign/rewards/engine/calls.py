"""What surrounds a call of a reward, so that foreign code shifts nothing of the run, and says so where it is slow."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mmalign.rewards.engine.quiet_random import quiet_random

SLOW = 60.0  # seconds of one call after which a line names the reward; the next comes after as long again, and so on


@contextmanager
def foreign_call(name: str, rows: int) -> Iterator[None]:
    """Around a call of reward `name`: random state and working directory are kept, long silence is broken."""
    with quiet_random(), same_folder(), said_if_slow(f"reward '{name}' has been scoring {rows} rows", SLOW):
        yield


@contextmanager
def same_folder() -> Iterator[None]:
    """Go back to the working directory on leaving: relative paths of the run must mean the same afterwards."""
    here = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def said_if_slow(what: str, after: float) -> Iterator[None]:
    """Print "note: `what` for … s" after `after` seconds inside, and each time when as long again has passed."""
    done = threading.Event()

    def watch() -> None:
        waited, pause = 0.0, after
        while not done.wait(pause):
            waited, pause = waited + pause, waited + pause
            print(f"note: {what} for {waited:.0f} s.", file=sys.stderr, flush=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
