"""Ctrl-C during training: the step is finished first, so that what is saved is the exact state between two steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_SAID = b"\nstopping when this step is done, with a checkpoint; Ctrl-C again stops at once, without.\n"


@contextmanager
def stop_on_interrupt(processes: int = 1) -> Iterator[Callable[[], bool]]:
    """Yield "has a stop been asked for?"; inside, the first Ctrl-C only asks, the second one interrupts.

    Of several processes each would stop at a step of its own, so there, as in a thread and where somebody else handles
    Ctrl-C, it interrupts at once.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):
            os.write(2, _SAID)  # not print: it may be what was interrupted

    in_main = threading.current_thread() is threading.main_thread()
    if processes > 1 or not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: asked
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
