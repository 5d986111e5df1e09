"""`mmalign report` and `mmalign compare`: looking at runs that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `report` and `compare`."""
    app.command("report")(report)
    app.command("compare")(compare_command)


def report(run: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")]) -> None:
    """Write DIR/report.html: one file, opens offline."""
    from mmalign.evaluation.folders import require_run

    require_run(run)  # before what takes seconds to import
    from mmalign.evaluation.report import write_report

    typer.echo(str(write_report(run)))


def compare_command(
    a: Annotated[Path, typer.Argument(metavar="DIR", help="the run to compare against")],
    b: Annotated[Path, typer.Argument(metavar="DIR", help="the run that should be better")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="where the page goes; compared/A.html of B by default")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, write no page")] = False,
) -> None:
    """Compare two runs prompt by prompt: a table, and a page to look at them side by side."""
    from mmalign.evaluation.folders import evaluation_folders

    if as_json and out is not None:
        raise ConfigError("--json and --out: JSON is printed and writes no page; leave one out.")
    for run in (a, b):
        evaluation_folders(run)  # before what takes seconds to import
    from mmalign.evaluation.compare import compare_runs, comparison_json, comparison_table

    if as_json:
        typer.echo(comparison_json(*compare_runs(a, b)))
        return
    from rich.console import Console

    from mmalign.evaluation.report.compared import open_compared, page_of, write_compared

    compared = open_compared(a, b)
    Console().print(comparison_table(compared.verdicts, (a.name, b.name)))
    places = [str(folder.relative_to(run)) for folder, run in zip(compared.folders, (a, b), strict=True)]
    if places != ["evaluation/after"] * 2:
        typer.echo(f"compared: {compared.folders[0]} and {compared.folders[1]}")
    for name in compared.unlike:
        typer.echo(f"{name} is not one measure: its options differ between the two run files.")
    typer.echo(f"page: {write_compared(compared, out or page_of(a, b))}")
