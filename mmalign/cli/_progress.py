"""What a long command says while it works: at once that it does, then how far it is; all on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mmalign.core.pace import Pace


@contextmanager
def progress(doing: str, done: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `advance(done, total)`: a bar on a terminal, elsewhere a line now and then ("scored 64 of 256")."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Pace(done)
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda count, total: bar.update(task, completed=count, total=total)


def starting(what: str) -> None:
    """Say what begins, before what takes seconds to import; of several processes the first does."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            print(f"{what} …", file=sys.stderr, flush=True)
