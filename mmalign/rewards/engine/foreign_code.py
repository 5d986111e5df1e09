"""Around code that is not the run's own: it shifts no random number and no folder, and says so where it is slow."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SLOW = 60.0  # seconds of one call after which a line names the reward; the next comes after as long again, and so on


@contextmanager
def foreign_call(name: str, rows: int) -> Iterator[None]:
    """Around a call of reward `name`: random state and working directory are kept, long silence is broken."""
    with (
        preserve_rng_state(),
        preserve_working_directory(),
        report_if_slow(f"reward '{name}' has been scoring {rows} rows", SLOW),
    ):
        yield


@contextmanager
def preserve_working_directory() -> Iterator[None]:
    """Go back to the working directory on leaving: relative paths of the run must mean the same afterwards."""
    here = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def report_if_slow(what: str, after: float) -> Iterator[None]:
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


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore torch's (CPU and initialised CUDA), NumPy's and Python's global generators on leaving."""
    state, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
