"""`mmalign features`: how the features of outputs lie, and what they know."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `features`."""
    app.command("features")(features_command)


def features_command(
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS.jsonl|DIR",
            help="lines of prompt, output, meta?, group?, as `score` reads them; MRMBench's JSON; or comparisons",
        ),
    ],
    reader: Annotated[
        str, typer.Option("--with", help="an encoder (clip, clap, text, …) or an adapter (reward_model, causal_lm, …)")
    ],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of the encoder or adapter")
    ] = None,
    alike: Annotated[
        str, typer.Option(metavar="COLUMN", help="a column of meta: rows with the same value belong together")
    ] = "",
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="a column of meta that a linear probe is to tell; of comparisons, their dimension"
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="ROWS.jsonl", help="rows to compare with: what varies here and not there")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="keep the features here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure features: uniformity, effective rank, tolerance, recall@k, MRR, probes, contrastive PCA.

    Rows whose output cannot be read or embedded are left out and counted. Of comparisons (prompt, chosen, rejected) and
    --probe: how often the nearest centroid of differences of features has the name of the dimension, a column that some
    of the rows have, and what the others are judged by (MRMBench's probing at inference).
    """
    starting("checking the rows and what reads them")
    from mmalign.run.judged_by import holds_comparisons

    if holds_comparisons(rows):
        if alike or against is not None or out is not None or not probe:
            raise ConfigError(
                f"{rows}: holds comparisons; name the column of their dimension by --probe; --alike, --against and "
                "--out are of outputs."
            )
        _show(_judged(rows, reader, options or [], probe), as_json)
        return
    from mmalign.cli._progress import progress
    from mmalign.core.config import override
    from mmalign.run.features import changed, feature_measures, feature_reader, features_of
    from mmalign.run.labelled_rows import read_probed_rows

    table = read_probed_rows(rows)
    other = read_probed_rows(against) if against is not None else []
    read = feature_reader(reader, override({}, options or []))
    with progress("reading features", "read") as advance:
        vectors, kept = features_of(table, read, rows if rows.is_dir() else rows.parent, progress=advance)
    if len(kept) < len(table):
        typer.echo(f"note: {len(table) - len(kept)} of {len(table)} rows have no features and are left out", err=True)
    of = [table[i] for i in kept]
    figures = feature_measures(vectors, of, alike, probe or [])
    if against is not None:
        behind, _ = features_of(other, read, against if against.is_dir() else against.parent)
        figures["changed"] = changed(vectors, behind, of)
    if out is not None:
        _keep(out, vectors)
    _show(figures, as_json)


def _judged(rows: Path, reader: str, options: list[str], columns: list[str]) -> dict[str, dict[str, Any]]:
    from mmalign.core.config import override
    from mmalign.run.features import feature_reader
    from mmalign.run.judge import read_comparisons
    from mmalign.run.judged_by import judged_by

    pairs, read = read_comparisons(str(rows)), feature_reader(reader, override({}, options))
    return {f"judged by {column}": judged_by(pairs, read, column) for column in columns}


def _show(figures: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
    else:
        _print(figures)


def _keep(out: Path, vectors: Any) -> None:
    import torch
    from safetensors.torch import save_file

    from mmalign.core.files import write_beside

    with write_beside(out) as beside:
        save_file({"features": torch.from_numpy(vectors).contiguous()}, beside)


def _print(figures: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", "95 % interval", "rows", "", box=None)
    for name, of in figures.items():
        bounds = f"{of['low']:.3f} to {of['high']:.3f}" if isinstance(of.get("low"), float) else ""
        more = (
            f"majority {of['majority']:.3f}"
            if "majority" in of
            else f"AUROC {of['auroc']:.3f}"
            if "auroc" in of
            else ""
        )
        table.add_row(name, f"{of['value']:.3f}", bounds, str(of["n"]), more)
    Console().print(table)
    for of in figures.values():
        if named := Counter(row["dimension"] for row in of.get("named", [])):
            counts = ", ".join(f"{name} {count}" for name, count in named.most_common())
            Console().print(f"pairs without the column are judged by: {counts} (--json lists them)", highlight=False)
    if "changed" in figures:
        for end in ("high", "low"):
            Console().print(f"{end}: " + " | ".join(figures["changed"][end]), highlight=False)
