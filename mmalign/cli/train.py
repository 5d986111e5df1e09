"""`mmalign train`: one run, from a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `train`."""
    app.command("train")(train_command)


def train_command(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[RUN.yaml] [KEY.PATH=VALUE]…")] = None,
    out: Annotated[Path | None, typer.Option(help="run directory; runs/<file name> by default")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR[@STEP]", help="continue this run directory; its run.yaml is used")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, load nothing, print the run file")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="with --dry-run: count the memory that the run takes, from configurations")
    ] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Train one run file; overrides are key.path=value. Ctrl-C, SIGTERM, SIGUSR1 stop it after a step, saved."""
    starting("checking the run" if not dry_run else "checking everything")
    from mmalign.cli._table import print_rows
    from mmalign.cli.listing import find_config
    from mmalign.core.config import draft, dump, is_change
    from mmalign.run.build import examine, training_rows
    from mmalign.run.encoded_once import encoded_line
    from mmalign.run.launch import is_first
    from mmalign.run.media_lines import media_lines, row_lines
    from mmalign.run.notes import notes
    from mmalign.run.resuming import refuse_both, resume_point
    from mmalign.run.train import train

    refuse_both(out, resume)
    if memory and not dry_run:
        raise ConfigError("--memory: is counted by --dry-run; give both.")
    words = list(arguments or [])
    file = words.pop(0) if words and not is_change(words[0]) else None
    if file is None and resume is None:
        raise ConfigError("name a run file, e.g. `mmalign train run.yaml`; `mmalign list configs` shows ready ones.")
    path = find_config(file) if file else resume_point(str(resume))[0] / "run.yaml"
    if dry_run:
        parts, _ = examine(draft(path, words), allow or ())
        items, aside = training_rows(parts, fetch=False), parts.source.held_out_items()
        typer.echo(dump(parts.resolved()), nl=False)
        for note in notes(parts):
            typer.echo(f"# note: {note}")
        for line in [*media_lines(items), *row_lines(items), *encoded_line(parts, items)]:
            typer.echo(f"# {line}")
        if memory:
            from mmalign.run.memory import memory_line

            typer.echo(f"# {memory_line(parts, items)}")
        typer.echo(f"# ok: {len(items)} rows to train on, {len(aside)} held out; nothing was loaded or written.")
        return
    finished = train(path, words, out=out, resume=resume, allow=allow or ())
    if is_first():
        print_rows(finished.rows)
        report = finished.directory.path / "report.html"
        typer.echo(f"\nrun directory  {finished.directory.path}\nreport         {report}")
