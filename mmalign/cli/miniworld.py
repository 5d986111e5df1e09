"""`mmalign miniworld`: make data of the bundled worlds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from mmalign.cli._progress import progress
from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting

world = typer.Typer(help="The bundled worlds: make data.", no_args_is_help=True)
making = typer.Typer(help="Make truth outputs with captions.", no_args_is_help=True)
world.add_typer(making, name="make")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="an empty or new folder")]
Count = Annotated[int, typer.Option(min=1, help="how many")]
Split = Annotated[str, typer.Option(help="train, heldout or any")]
Seed = Annotated[int, typer.Option(min=0, help="of captions and outputs")]


def register(app: typer.Typer) -> None:
    """Add `miniworld`."""
    app.add_typer(world, name="miniworld")


@making.command("scenes")
def scenes(out: Folder, count: Count = 100, split: Split = "train", seed: Seed = 0) -> None:
    """Draw truth scenes with captions: DIR/0000.png … and DIR/rows.jsonl, which `mmalign score` reads."""
    starting(f"drawing {count} scenes")
    import numpy as np
    import torch

    from mmalign.media.image import write_image
    from mmalign.miniworld.grammar import sample_request, sample_scene
    from mmalign.miniworld.scenes import render

    rng = np.random.default_rng(seed)

    def draw(path: Path) -> dict[str, object]:
        request = sample_request(rng, split)
        write_image(torch.from_numpy(render(sample_scene(request, rng), rng)), path)
        return {"prompt": request.text, "output": path.name, "meta": {"task": request.task}}

    _make(out, ".png", count, split, draw)


@making.command("tunes")
def tunes(
    out: Folder,
    count: Count = 100,
    split: Split = "train",
    seed: Seed = 0,
    style: Annotated[str | None, typer.Option(help="only tunes of this style, as a set of exemplars")] = None,
    clockwork: Annotated[bool, typer.Option(help="as the embedded generator plays: in step with its frames")] = False,
    files: Annotated[Literal["wav", "flac"], typer.Option(help="both keep every sample; flac takes a third")] = "wav",
) -> None:
    """Play truth tunes with captions: DIR/0000.wav … and DIR/rows.jsonl, which `mmalign score` reads."""
    starting(f"playing {count} tunes")
    import numpy as np
    import torch

    from mmalign.media.audio import write_audio
    from mmalign.miniworld.tunes.clockwork import play_in_step
    from mmalign.miniworld.tunes.grammar import sample_request, sample_tune
    from mmalign.miniworld.tunes.rendering import render
    from mmalign.miniworld.tunes.styles import STYLES, sample_style
    from mmalign.miniworld.tunes.tune import RATE

    if style is not None and style not in STYLES:
        raise ConfigError(f"--style {style}: there is {', '.join(STYLES)}.")
    if style is not None and split != "train":
        raise ConfigError(f"--style {style} --split {split}: styles play what is in the train split only.")
    rng = np.random.default_rng(seed)

    def play(path: Path) -> dict[str, object]:
        if style is not None:
            tune, request = sample_style(style, rng)
        else:
            request = sample_request(rng, split)
            tune = sample_tune(request, rng, seen_only=split == "train")
        clip = play_in_step(tune, rng) if clockwork else render(tune, rng)
        write_audio(torch.from_numpy(clip)[None], RATE, path)
        return {"prompt": request.text, "output": path.name, "meta": {"tune": tune._asdict()}}

    _make(out, f".{files}", count, split, play)


@making.command("comparisons")
def comparisons_command(
    out: Annotated[Path, typer.Argument(metavar="FILE.jsonl")],
    count: Count = 100,
    wrong: Annotated[int, typer.Option(min=1, help="captions that nearly say the same; 3 for best-of-4")] = 1,
    split: Split = "train",
    seed: Seed = 0,
) -> None:
    """Write everyday requests with a right caption and wrong ones: what a reward model of rewrites is fitted to."""
    starting(f"writing {count} rows")
    from mmalign.miniworld.comparisons import comparisons as draw

    _require_split(split)
    _write_rows(out, draw(count, wrong, split, seed))
    typer.echo(f"{out}: {count} rows")


@making.command("retrieval")
def retrieval_command(
    out: Annotated[Path, typer.Argument(metavar="FILE.jsonl")],
    count: Count = 100,
    split: Split = "train",
    seed: Seed = 0,
) -> None:
    """Write questions over passages with right and wrong answers, of RAG-RewardBench's four kinds: for `judge`."""
    starting(f"writing {count} rows")
    from mmalign.miniworld.retrieval import retrieval as draw

    _require_split(split)
    _write_rows(out, draw(count, split, seed))
    typer.echo(f"{out}: {count} rows; try: mmalign judge {out} --reward citations")


def _write_rows(out: Path, rows: Iterable[object]) -> None:
    """A line of JSON for each row."""
    from mmalign.core.files import write_beside

    with write_beside(out) as beside:
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _make(out: Path, suffix: str, count: int, split: str, one: Callable[[Path], dict[str, object]]) -> None:
    """Fill a new folder: `one` writes a file and says what its row is."""
    from mmalign.core.files import write_folder_beside

    _require_split(split)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is not an empty folder; name a new one.")
    with write_folder_beside(out) as folder:
        lines = []
        with progress("making outputs", "made") as advance:
            for i in range(count):
                lines.append(json.dumps(one(folder / f"{i:04d}{suffix}")))
                advance(i + 1, count)
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    typer.echo(f"{count} outputs in {out}; try: mmalign score {out}/rows.jsonl --reward verifier")


def _require_split(split: str) -> None:
    if split not in ("train", "heldout", "any"):
        raise ConfigError(f"--split {split}: use train, heldout or any.")


@world.command("reference")
def world_reference_command(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("assets/reference/scenes_judge.safetensors"),
    encoder: Annotated[str, typer.Option(help="the CLIP checkpoint that embeds")] = "assets/scenes_judge",
    count: Annotated[int, typer.Option(min=2, help="truth scenes")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="of captions and scenes")] = 0,
) -> None:
    """Write the statistics of truth scenes that the frechet and mmd rewards compare with."""
    starting(f"drawing {count} scenes")
    import numpy as np
    import torch

    from mmalign.core.protocols import ImageEncoder
    from mmalign.miniworld.grammar import sample_request, sample_scene
    from mmalign.miniworld.scenes import render
    from mmalign.rewards.encoders import make_encoder, no_side
    from mmalign.rewards.reference_sets.statistics import save_reference

    rng = np.random.default_rng(seed)
    scenes = [render(sample_scene(sample_request(rng, "train"), rng), rng) for _ in range(count)]
    embed = make_encoder(encoder)
    if not isinstance(embed, ImageEncoder):
        raise no_side(ImageEncoder, "embeds no pictures")
    with torch.no_grad():
        rows = torch.cat([embed.images([torch.from_numpy(image)]) for image in scenes])
    command = f"mmalign miniworld reference --encoder {encoder} --count {count} --seed {seed}"
    save_reference(out, rows, embed, source=command, keep_rows=False)
    typer.echo(f"{count} truth scenes as {encoder} sees them: {out}")


@world.command("train", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def scripts_of_training() -> None:
    """Say how the bundled models are trained anew: their scripts lie in the source checkout."""
    raise ConfigError(
        "the bundled models are trained by scripts of the source checkout: python -m pipelines.miniworld NAME --out "
        "DIR (without a name it trains all of them; several hours on two CPU cores)."
    )
