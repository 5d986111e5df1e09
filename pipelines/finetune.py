"""Fine-tune a generator on a folder of one's own pictures or sounds with their captions.

    python -m pipelines.finetune my_photos/                        # a.png with a.txt beside it, or metadata.jsonl
    python -m pipelines.finetune my_songs/ data.cut=random         # songs are cut to the length that the model makes
    python -m pipelines.finetune my_dog/ --class "a photo of a dog" # DreamBooth: what it knows of dogs stays
    python -m pipelines.finetune --resume runs/finetune            # goes on after Ctrl-C

What the folder holds decides between Stable Diffusion 3.5 and Stable Audio Open, each meant for one GPU of 24 GB;
`--config` names any other run file. Every other word is a change of it, as `trainer.steps=200`. The embedded models:

    python -m pipelines.finetune assets/exemplars/mixed/rows.jsonl --config configs/tunes/finetune.yaml
    python -m pipelines.finetune --config configs/scenes/finetune.yaml

Leaves a run directory (`--out`) with a LoRA that plain diffusers loads, samples and a report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmalign
from mmalign import errors_as_sentences
from mmalign.core.config import is_change
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import require_local
from mmalign.media.folders import media_in
from mmalign.media.kinds import Kind
from mmalign.run.train import Finished
from pipelines._command_line import add_folder, change, parser, same_file
from pipelines._printing import tell

CONFIGS = Path(__file__).parents[1] / "configs"
READY: dict[Kind, Path] = {
    "image": CONFIGS / "text_to_image" / "finetune.yaml",
    "audio": CONFIGS / "text_to_audio" / "finetune.yaml",
}
OUT = Path("runs/finetune")


def config_for(folder: Path) -> Path:
    """The ready run file for the media that `folder` holds.

    Raises:
        DataError: neither pictures nor sounds, or both.
    """
    media = media_in(folder)
    kinds = [kind for kind in READY if media.of(kind)]
    if len(kinds) != 1:
        there = "pictures and sounds" if kinds else "neither pictures nor sounds"
        raise DataError(f"{folder}: holds {there}; name a folder of one kind, or the run file by --config.")
    return READY[kinds[0]]


def changes_for(data: str, keep: str = "") -> list[str]:
    """The changes of a run file that train on `data` and `keep` what the model knows of a class."""
    own = [change("data.path", data)] if data else []
    return own + ([change("objective.prior_prompts", [keep])] if keep else [])


def main(data: str, config: Path | None, keep: str, changes: Sequence[str], out: Path) -> Finished:
    """Check everything before any weight is loaded, train, and measure before and after."""
    remote = data.startswith("hub:")
    place = require_local(data).absolute() if data and not remote else None
    if config is None:
        if place is None:
            raise ConfigError("--config: names the run file where no folder of pictures or sounds does.")
        config = config_for(place if place.is_dir() else place.parent)
    return mmalign.train(config, [*changes_for(str(place or data), keep), *changes], out=out)


def resumed(given: argparse.Namespace) -> Finished:
    """Go on as the run's own file says."""
    words = [given.data, given.config and "--config", given.keep and "--class"]
    if surplus := [word for word in words if word]:
        raise ConfigError(f"--resume {given.resume}: goes on as its run.yaml says; leave {', '.join(surplus)} away.")
    return mmalign.train(same_file(given.resume, READY["image"]), given.changes, resume=given.resume)


def read(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__)
    reader.add_argument("words", nargs="*", metavar="FOLDER|KEY.PATH=VALUE")
    reader.add_argument("--config", type=Path, metavar="RUN.yaml")
    reader.add_argument("--class", dest="keep", default="", metavar="TEXT", help="a prompt for what stays known")
    add_folder(reader, OUT)
    args = reader.parse_intermixed_args(words)
    places = [word for word in args.words if not is_change(word)]
    if len(places) > 1:
        reader.error(f"one folder, not {len(places)}: {', '.join(places)}")
    if args.resume and args.out:
        reader.error(f"--out {args.out}: a resumed run goes on in its own folder; leave it away")
    args.data = places[0] if places else ""
    args.changes = [word for word in args.words if is_change(word)]
    if not (args.data or args.config or args.resume):
        reader.error("name a folder of pictures or sounds, or a run file by --config")
    return args


if __name__ == "__main__":
    given = read()
    with errors_as_sentences():
        if given.resume:
            tell(resumed(given))
        else:
            tell(main(given.data, given.config, given.keep, given.changes, given.out or OUT))
