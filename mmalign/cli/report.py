"""`mmalign report` and `mmalign compare`: looking at runs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `report` and `compare`."""
    app.command("report")(report)
    app.command("compare")(compare)


def report(run: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")]) -> None:
    """Write DIR/report.html: one file, opens offline."""
    from mmalign.core.errors import DataError
    from mmalign.evaluation.report import write_report

    if not run.is_dir():
        raise DataError(f"{run}: no such run directory.")
    if not (run / "run.yaml").is_file():
        raise DataError(f"{run}: no run.yaml in it; name a directory that `mmalign train` wrote.")
    typer.echo(str(write_report(run)))


def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR", help="the run to compare against")],
    b: Annotated[Path, typer.Argument(metavar="DIR", help="the run that should be better")],
) -> None:
    """Compare two runs prompt by prompt: win rate, difference with interval, sign test."""
    from rich.console import Console

    from mmalign.evaluation.compare import compare_runs, comparison_table

    Console().print(comparison_table(compare_runs(a, b), (a.name, b.name)))
