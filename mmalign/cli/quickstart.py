"""`mmalign quickstart`: the main job on the embedded models, in minutes, with a report to look at."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `quickstart`."""
    app.command("quickstart")(quickstart)


def quickstart(
    what: Annotated[str, typer.Argument(help="image, or all")] = "image",
    out: Annotated[Path | None, typer.Option(help="run directory; runs/quickstart-<what> by default")] = None,
) -> None:
    """Align the embedded model, measure it on held-out prompts before and after, and write a report."""
    from mmalign.cli._table import print_rows
    from mmalign.cli.listing import configs, find_config
    from mmalign.run.train import train

    ready = [name.removeprefix("quickstart/") for name in configs() if name.startswith("quickstart/")]
    if what not in (*ready, "all"):
        raise ConfigError(f"there is no quickstart '{what}'; there is {', '.join(ready)}, or all.")
    for each in ready if what == "all" else [what]:
        directory = out / each if out and what == "all" else out or Path("runs") / f"quickstart-{each}"
        clear(directory)
        start = time.perf_counter()
        finished = train(find_config(f"quickstart/{each}"), out=directory)
        print_rows(finished.rows)
        minutes = (time.perf_counter() - start) / 60
        typer.echo(
            f"\n{minutes:.1f} minutes. Look at {directory / 'report.html'}; numbers in {directory / 'summary.json'}."
        )


def clear(directory: Path) -> None:
    """A quickstart is always a fresh run: remove an earlier one, and nothing else."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / "environment.json").exists():
        raise ConfigError(f"{directory}: is not empty and holds no run; choose another --out.")
    shutil.rmtree(directory)
