"""A bar on standard error while work is done; nothing where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """Yield `advance(done)`."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def starting(what: str) -> None:
    """Say on standard error what begins, before what takes seconds to import; of several processes the first does."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            print(f"{what} …", file=sys.stderr, flush=True)
