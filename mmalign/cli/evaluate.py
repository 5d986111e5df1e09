"""`mmalign evaluate`: a policy on held-out prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    app.command("evaluate")(evaluate_command)


def evaluate_command(
    run: Annotated[str, typer.Argument(metavar="RUN.yaml|DIR", help="a run file, or a run directory")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]…")] = None,
    prompts: Annotated[Path | None, typer.Option(help="a file of prompts instead of the run's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Measure a generator (run file), or a run's start against a checkpoint (DIR: the newest; DIR@STEP, DIR@best)."""
    starting("checking what is to be measured")
    from rich.console import Console

    from mmalign.cli._table import print_rows
    from mmalign.cli.listing import find_config
    from mmalign.evaluation.table import evaluation_table
    from mmalign.run.evaluate import evaluate as measure
    from mmalign.run.resuming import resume_point

    path = run if resume_point(run)[0].is_dir() else find_config(run)
    done = measure(path, prompts, changes or (), allow or ())
    if done.directory is not None:
        if as_json:
            typer.echo((done.directory.path / "summary.json").read_text(encoding="utf-8"), nl=False)
        else:
            print_rows(done.rows, done.asked)
            typer.echo(f"\nreport         {done.directory.path / 'report.html'}")
        return
    if as_json:
        rows = [
            {
                "name": name,
                "value": _finite(interval.value),
                "ci": [_finite(interval.low), _finite(interval.high)],
                "n": interval.n,
            }
            for name in done.evaluation.names()
            for interval in [done.evaluation.interval(name)]
        ]
        typer.echo(json.dumps({"rows": rows, "seconds": round(done.evaluation.seconds, 3)}, indent=1))
    else:
        Console().print(evaluation_table(done.evaluation, done.asked))


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
