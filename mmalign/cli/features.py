"""`mmalign features`: how the features of outputs lie, and what they know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `features`."""
    app.command("features")(features_command)


def features_command(
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS.jsonl|DIR",
            help="lines of prompt, output, meta?, group?, as `score` reads them; or MRMBench's JSON",
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
        list[str] | None, typer.Option(metavar="COLUMN", help="a column of meta that a linear probe is to tell")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="ROWS.jsonl", help="rows to compare with: what varies here and not there")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="keep the features here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure features: uniformity, effective rank, tolerance, recall@k, MRR, probes, contrastive PCA.

    Rows whose output cannot be read or embedded are left out and counted.
    """
    starting("checking the rows and what reads them")
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
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
        return
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
    if "changed" in figures:
        for end in ("high", "low"):
            Console().print(f"{end}: " + " | ".join(figures["changed"][end]), highlight=False)
