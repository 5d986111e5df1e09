"""`mmalign reference`: statistics of exemplars in a file, for the rewards that compare with a set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmalign.cli._progress import progress
from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting

Unit = Literal["row", "frame"]


def register(app: typer.Typer) -> None:
    """Add `reference`."""
    app.command("reference")(reference_command)


def reference_command(
    exemplars: Annotated[str, typer.Argument(metavar="DIR|TEXTS.txt", help="pictures, sounds, or one text per line")],
    out: Annotated[Path, typer.Option(help="the .safetensors to write")],
    encoder: Annotated[str, typer.Option(help="what embeds: its name, or a CLIP checkpoint; required")] = "",
    options: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="of the encoder")] = None,
    unit: Annotated[Unit, typer.Option(help="row: one per file; frame: all frames, for song_fad")] = "row",
    pairs: Annotated[str, typer.Option(help="captioned sounds that measure a CLAP's modality gap; texts only")] = "",
    adapter: Annotated[str, typer.Option(help="the generator whose latents encoder `latents` takes")] = "",
    adapter_options: Annotated[
        list[str] | None, typer.Option("--adapter-set", metavar="KEY=VALUE", help="of the adapter, as model=…")
    ] = None,
) -> None:
    """Embed exemplars once and keep their statistics with their provenance."""
    starting(f"checking what is to be embedded of {exemplars}")
    from mmalign.adapters import adapters
    from mmalign.core.config import override
    from mmalign.core.protocols import Encoder, FrameEncoder
    from mmalign.rewards.encoders import described, encoders, make_encoder, no_side
    from mmalign.rewards.reference_sets.statistics import load_reference, save_reference
    from mmalign.run.latent_encoder import LatentEncoder

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: statistics are a .safetensors file.")
    named = {"name": encoder, **override({}, options or [])} if encoder in encoders.names() else encoder
    if options and not isinstance(named, dict):
        raise ConfigError(f"--set: options belong to an --encoder; known: {', '.join(encoders.names())}.")
    made = make_encoder(named)
    seen: Encoder = made
    if adapter:
        if not isinstance(made, FrameEncoder):
            raise no_side(FrameEncoder, "gives one row per output and no frames")
        section = {"name": adapter, **override({}, adapter_options or [])}
        seen = LatentEncoder(made, adapters.build(section, "--adapter"))
    with progress("embedding", "embedded") as advance:
        statistics = load_reference(exemplars, seen, unit, pairs, advance)
    save_reference(out, statistics, made, exemplars)
    typer.echo(f"{statistics.gaussian.count} {unit}s of {exemplars} in {described(made)}: {out}")
