"""`mmalign miniworld`: make data of the embedded world, and retrain its models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.errors import ConfigError

world = typer.Typer(help="The embedded world: make data, retrain its models.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `miniworld`."""
    app.add_typer(world, name="miniworld")


@world.command("make")
def make(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="an empty or new folder")],
    count: Annotated[int, typer.Option(min=1, help="scenes to draw")] = 100,
    split: Annotated[str, typer.Option(help="train, heldout or any")] = "train",
    seed: Annotated[int, typer.Option(help="of captions and scenes")] = 0,
) -> None:
    """Draw truth scenes with captions: DIR/0000.png … and DIR/rows.jsonl, which `mmalign score` reads."""
    import numpy as np
    import torch

    from mmalign.core.files import write_folder_beside
    from mmalign.media.image import write_image
    from mmalign.miniworld.grammar import sample_request, sample_scene
    from mmalign.miniworld.scenes import render

    if split not in ("train", "heldout", "any"):
        raise ConfigError(f"--split {split}: use train, heldout or any.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is not an empty folder; name a new one.")
    rng = np.random.default_rng(seed)
    with write_folder_beside(out) as folder:
        lines = []
        for i in range(count):
            request = sample_request(rng, split)
            write_image(torch.from_numpy(render(sample_scene(request, rng), rng)), folder / f"{i:04d}.png")
            lines.append(json.dumps({"prompt": request.text, "output": f"{i:04d}.png", "meta": {"task": request.task}}))
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    typer.echo(f"{count} scenes in {out}; try: mmalign score {out}/rows.jsonl --reward verifier")


@world.command("reference")
def reference(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("assets/reference/scenes_judge.safetensors"),
    encoder: Annotated[str, typer.Option(help="the CLIP checkpoint that embeds")] = "assets/scenes_judge",
    count: Annotated[int, typer.Option(min=2, help="truth scenes")] = 512,
    seed: Annotated[int, typer.Option(help="of captions and scenes")] = 0,
) -> None:
    """Write the statistics of truth scenes that the frechet and mmd rewards compare with."""
    import numpy as np
    import torch

    from mmalign.miniworld.grammar import sample_request, sample_scene
    from mmalign.miniworld.scenes import render
    from mmalign.rewards._reference import save_reference
    from mmalign.rewards.encoders import make_encoder

    rng = np.random.default_rng(seed)
    scenes = [render(sample_scene(sample_request(rng, "train"), rng), rng) for _ in range(count)]
    embed = make_encoder(encoder)
    with torch.no_grad():
        rows = torch.cat([embed.images([torch.from_numpy(image)]) for image in scenes])
    command = f"mmalign miniworld reference --encoder {encoder} --count {count} --seed {seed}"
    save_reference(out, rows, embed, source=command, keep_rows=False)
    typer.echo(f"{count} truth scenes as {encoder} sees them: {out}")


@world.command("train")
def train(
    what: Annotated[str, typer.Argument(help="one model, or all")] = "all",
    out: Annotated[Path, typer.Option(help="where the models' folders go")] = Path("assets"),
) -> None:
    """Retrain the embedded models from nothing (about an hour on two CPU cores)."""
    from mmalign.miniworld.retrain import MODELS

    if what not in (*MODELS, "all"):
        raise ConfigError(f"no embedded model is called '{what}'; there is {', '.join(MODELS)}, or all.")
    for name in MODELS if what == "all" else [what]:
        typer.echo(f"training {name} …")
        MODELS[name](out)
