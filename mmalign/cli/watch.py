"""`mmalign watch`: a run in the terminal while it goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `watch`."""
    app.command("watch")(watch)


def watch(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")],
    once: Annotated[bool, typer.Option("--once", help="print how it stands and stop, as into a pipe")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 2.0,
) -> None:
    """Watch a run: how far it is, curves, scores of the last samples, alarms; ends with the run."""
    from mmalign.evaluation.folders import require_run

    require_run(run)
    from rich.console import Console

    from mmalign.evaluation.progress import progress_of
    from mmalign.evaluation.run_record import read_numbers
    from mmalign.evaluation.watch import view

    console = Console()
    record = read_numbers(run)
    if once or not console.is_terminal or progress_of(record).state != "running":
        console.print(view(record))
        return
    from rich.live import Live

    with Live(view(record), console=console, auto_refresh=False) as live:
        while progress_of(record).state == "running":
            time.sleep(every)
            record = read_numbers(run)
            live.update(view(record), refresh=True)
