"""How far a long command is, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
