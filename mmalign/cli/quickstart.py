"""`mmalign quickstart`: the main job on the embedded models, in minutes, with a report to look at."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `quickstart`."""
    app.command("quickstart")(quickstart)


def quickstart(
    what: Annotated[str, typer.Argument(help="image, text, audio, or all")] = "image",
    out: Annotated[
        Path | None, typer.Option(help="folder for the run, or for its parts' runs; runs/quickstart-<what> by default")
    ] = None,
) -> None:
    """Align embedded models, measure them on held-out prompts before and after, and write a report of each."""
    starting("checking the quickstart")
    from mmalign.cli._table import print_rows
    from mmalign.run.train import train

    ready = quickstarts_by_name()
    if what not in (*ready, "all"):
        raise ConfigError(f"there is no quickstart '{what}'; there is {', '.join(ready)}, or all.")
    runs = {
        (out / each if out and what == "all" else out or Path("runs") / f"quickstart-{each}") / part: config
        for each in (ready if what == "all" else [what])
        for part, config in ready[each].items()
    }
    for directory in runs:
        refuse_others(directory)
    for number, (directory, config) in enumerate(runs.items(), 1):
        if directory.exists():
            shutil.rmtree(directory)
        typer.echo(f"\n{directory} ({number} of {len(runs)})")
        start = time.perf_counter()
        finished = train(config, out=directory)
        print_rows(finished.rows)
        minutes = (time.perf_counter() - start) / 60
        report = directory / "report.html"
        typer.echo(f"\n{minutes:.1f} minutes. Look at {report}; numbers in {report.with_name('summary.json')}.")


def quickstarts_by_name() -> dict[str, dict[str, Path]]:
    """Quickstarts by name, each with its run files by name; a quickstart of one run file has one without a name."""
    from mmalign.cli.listing import configs

    by_name: dict[str, dict[str, Path]] = {}
    for path, config in configs().items():
        folder, _, rest = path.partition("/")
        if folder == "quickstart":
            name, _, part = rest.partition("/")
            by_name.setdefault(name, {})[part] = config
    return by_name


def refuse_others(directory: Path) -> None:
    """A quickstart is always a fresh run: an earlier one in its folder is removed, and nothing else ever.

    Raises:
        ConfigError: the folder holds something else.
    """
    if not directory.exists() or not any(directory.iterdir()):
        return
    made = directory / "environment.json"
    try:
        command = str(json.loads(made.read_text(encoding="utf-8"))["command"])
    except (OSError, ValueError, KeyError, TypeError):
        command = ""
    if not command.startswith("mmalign quickstart"):
        raise ConfigError(f"{directory}: is not empty and holds no quickstart; choose another --out.")
