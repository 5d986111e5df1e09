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
    what: Annotated[str, typer.Argument(help="image, text, audio, or all")] = "image",
    out: Annotated[Path | None, typer.Option(help="run directory; runs/quickstart-<what> by default")] = None,
) -> None:
    """Align embedded models, measure them on held-out prompts before and after, and write a report of each."""
    from mmalign.cli._table import print_rows
    from mmalign.run.train import train

    ready = groups()
    if what not in (*ready, "all"):
        raise ConfigError(f"there is no quickstart '{what}'; there is {', '.join(ready)}, or all.")
    for each in ready if what == "all" else [what]:
        top = out / each if out and what == "all" else out or Path("runs") / f"quickstart-{each}"
        for name, config in ready[each].items():
            directory = top / name
            clear(directory)
            start = time.perf_counter()
            finished = train(config, out=directory)
            print_rows(finished.rows)
            minutes = (time.perf_counter() - start) / 60
            report = directory / "report.html"
            typer.echo(f"\n{minutes:.1f} minutes. Look at {report}; numbers in {report.with_name('summary.json')}.")


def groups() -> dict[str, dict[str, Path]]:
    """Quickstarts by name, each with its run files by name; a quickstart of one run file has one without a name."""
    from mmalign.cli.listing import configs

    found: dict[str, dict[str, Path]] = {}
    for path, config in configs().items():
        folder, _, rest = path.partition("/")
        if folder == "quickstart":
            name, _, part = rest.partition("/")
            found.setdefault(name, {})[part] = config
    return found


def clear(directory: Path) -> None:
    """A quickstart is always a fresh run: remove an earlier one, and nothing else."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / "environment.json").exists():
        raise ConfigError(f"{directory}: is not empty and holds no run; choose another --out.")
    shutil.rmtree(directory)
