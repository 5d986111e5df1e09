"""`mmalign push`: what a run trained, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `push`."""
    app.command("push")(push)


def push(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="the repository; it is made where it is not there")],
    yes: Annotated[bool, typer.Option("--yes", help="send it; without, only what would be sent is listed")] = False,
    public: Annotated[bool, typer.Option("--public", help="a repository that is made is public, not private")] = False,
) -> None:
    """Send weights, card and run to the Hugging Face Hub: first the list of files, with `--yes` the files, private."""
    starting(f"reading {run}")
    from mmalign.evaluation.folders import require_run

    require_run(run)
    from mmalign.run.push import prepared, upload

    with prepared(run, name) as sent:
        for place, path in sent.files.items():
            note = f"   names {sent.places[place]}" if place in sent.places else ""
            typer.echo(f"{path.stat().st_size:>13,}  {place}{note}")
        kind = "public" if public else "private"
        total = f"{len(sent.files)} files, {sent.bytes:,} bytes, to {name} ({kind} if it is new)"
        if sent.places:
            typer.echo("Some name places of this machine, which readers would see.")
        if not yes:
            typer.echo(f"{total}. Nothing was sent; --yes sends it.")
            return
        typer.echo(f"{total}: sending …")
        typer.echo(upload(sent, name, private=not public))
