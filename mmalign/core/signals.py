"""Signals that end a program: Ctrl-C, a scheduler's SIGTERM and SIGUSR1 (its warning), a lost terminal's SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WARNING = signal.SIGUSR1  # time is nearly up: what SLURM sends with --signal=USR1@60
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, WARNING)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end: its `number`, and a message of what is left, if there is something to say."""

    def __init__(self, number: int = signal.SIGINT, message: str = "") -> None:
        super().__init__(message)
        self.number = int(number)


def exit_code(stopped: KeyboardInterrupt) -> int:
    """As shells count: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 138 after SIGUSR1."""
    return 128 + signal_of(stopped)


def signal_of(stopped: KeyboardInterrupt) -> int:
    """Return the number of the signal that interrupted the program; of Python's own interrupt that of Ctrl-C."""
    return stopped.number if isinstance(stopped, Interrupted) else int(signal.SIGINT)


@contextmanager
def interrupting() -> Iterator[None]:
    """Inside it SIGTERM, SIGHUP and SIGUSR1 raise `Interrupted` where they come, as Ctrl-C raises KeyboardInterrupt."""

    def raise_it(number: int, frame: object) -> None:
        raise Interrupted(number)

    with handled(raise_it):
        yield


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Inside it `handler` takes the ending signals that would end the program or interrupt it.

    Those that somebody else handles or that are ignored (nohup) stay as they are; so do all outside the main thread.
    """
    taken = {}
    if threading.current_thread() is threading.main_thread():
        taken = {number: old for number in ENDING if _free(old := signal.getsignal(number))}
    try:
        for number in taken:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)


def _free(handler: object) -> bool:
    """Is it what a program begins with, or `interrupting`'s?"""
    return handler in (signal.SIG_DFL, signal.default_int_handler) or _is_ours(handler)


def _is_ours(handler: object) -> bool:
    return getattr(handler, "__module__", "") == __name__
