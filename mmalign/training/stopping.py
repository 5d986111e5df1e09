"""A signal during training: the step is finished first, so that what is saved is the exact state between two steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mmalign.core.signals import WARNING, Interrupted, handled

_SAID = b"\nstopping when this step is done, with a checkpoint; Ctrl-C again stops at once, without.\n"
_ECHO = 1.0  # seconds


@contextmanager
def stop_on_signal(processes: int = 1, speak: bool = True) -> Iterator[Callable[[], int]]:
    """Yield "which signal has asked for a stop?" (0: none); inside, the first one only asks, the second interrupts.

    Ctrl-C, SIGTERM and SIGHUP are alike; SIGUSR1, a scheduler's warning, only ever asks, and what follows it is the
    first. In a thread, and where somebody else handles a signal, it is left alone.

    Args:
        processes: of several, each is told by the launcher and often by the terminal or scheduler too: what arrives
            within a second is one request.
        speak: say on standard error that it was heard.
    """
    request, at = 0, 0.0

    def ask(number: int, frame: object) -> None:
        nonlocal request, at
        if request and (number == WARNING or (processes > 1 and time.monotonic() - at < _ECHO)):
            return
        if request and request != WARNING:
            raise Interrupted(number)
        again, request, at = bool(request), number, time.monotonic()
        if speak and not again:
            with suppress(OSError):
                os.write(2, _SAID)  # not print: it may be what was interrupted

    with handled(ask):
        yield lambda: request
