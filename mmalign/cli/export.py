"""`mmalign export`: what a run trained, as other programs read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `export`."""
    app.command("export")(export)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run directory, or RUN@STEP")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]…")] = None,
    form: Annotated[str, typer.Option("--as", help="merged, peft, diffusers, kohya or comfyui")] = "merged",
    out: Annotated[Path | None, typer.Option("--out", help="where to write it; default RUN/export/FORM")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="of a merged model: fp32, bf16 or fp16")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Write what a run trained as another program reads it: a whole model, or its LoRA."""
    starting(f"exporting {run}")
    from mmalign.run.export import FORMS, export_run

    given: dict[str, Any] = {"--as": (form, FORMS), "--dtype": (dtype or "fp32", ("fp32", "bf16", "fp16"))}
    if faults := [
        f"{option} {value}: write {', '.join(known)}." for option, (value, known) in given.items() if value not in known
    ]:
        raise ConfigError(faults)
    typer.echo(str(export_run(run, form, out, dtype=dtype, allow=allow or (), changes=changes or ())))  # type: ignore[arg-type]
