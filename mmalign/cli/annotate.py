"""`mmalign annotate`: rows that say more than which output is better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `annotate`."""
    app.command("annotate")(annotate)


def annotate(
    rows: Annotated[Path, typer.Argument(metavar="ROWS.jsonl", help="lines of prompt, chosen, rejected, or others")],
    names: Annotated[list[str], typer.Option("--with", help="a name from `mmalign list annotators`; several in order")],
    out: Annotated[Path, typer.Option(help="the file to write")],
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[NAME.]KEY=VALUE", help="an option of an annotator; of several with its name"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="rows at a time")] = 32,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Write columns, or further rows, to every row: preference strength, goals, rankings, wordings, ….

    A run that was stopped goes on where it was. Rows that nothing can be said of are left out, and counted by reason.
    Exit code: 0, 1 if no row came of any.
    """
    starting("checking the rows and what is to be said of them")
    from mmalign.annotators import annotators
    from mmalign.annotators._file import annotate_file, read_pairs_file
    from mmalign.cli._progress import progress
    from mmalign.core.config import override
    from mmalign.core.errors import together

    if not rows.is_file():
        raise ConfigError(f"{rows}: no such file; name lines of JSON, each a row.")
    specs = annotator_specs(names, override({}, options or []))
    made, faults = [], []
    for spec in specs:
        try:
            made.append((spec["name"], annotators.build(spec, spec["name"], allow or ())))
        except ConfigError as error:
            faults.append(error)
    if faults:
        raise together(faults)
    read_pairs_file(rows)
    with progress("annotating", "annotated") as advance:
        result = annotate_file(rows, out, made, specs, batch, advance)
    before = f", {result.resumed} of them in an earlier run" if result.resumed else ""
    typer.echo(f"{out}: {result.written} rows of {result.read} read{before}", err=True)
    for reason, count in result.skipped.items():
        typer.echo(f"note: {count} skipped by {reason}", err=True)
    if not result.written:
        raise typer.Exit(1)


def annotator_specs(names: list[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The section of each annotator: of one its options are named plainly, of several behind its name.

    Raises:
        ConfigError: one that is named twice, or an option of none of several.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--with {twice[0]}: is named twice.")
    if len(names) == 1:
        return [{"name": names[0], **options}]
    if strange := [key for key in options if key not in names]:
        raise ConfigError(
            f"--set {strange[0]}=…: of several annotators an option has its annotator's name before it, as "
            f"{names[0]}.{strange[0]}=…"
        )
    return [{"name": name, **options.get(name, {})} for name in names]
