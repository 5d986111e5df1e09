"""Statistics of the two embedded styles in every encoder that the embedded run files compare in.

    python -m pipelines.music_statistics      # assets/reference/tunes_<style>_<encoder>.safetensors

Plays 512 truth tunes of each style into a folder and embeds them by `mmalign reference`, once per encoder; made again
whenever an embedded model of sound is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mmalign import errors_as_sentences
from mmalign.cli.main import application
from mmalign.miniworld.tunes.styles import STYLES
from pipelines._command_line import at_least_one, options

OUT = Path(__file__).parents[1] / "assets" / "reference"
FOLDER = Path("runs/styles")
_GENERATOR = [
    "--adapter",
    "stable_audio_3",
    "--adapter-set",
    "model=assets/tunes_sa3",
    "--adapter-set",
    "seconds=2.048",
]
_LATENTS = ["--encoder", "latents", "--set", "space=tunes_sa3", *_GENERATOR]

#: Options of `mmalign reference`, by the encoder's word in the file's name.
ENCODERS: dict[str, list[str]] = {
    "clap": ["--encoder", "clap", "--set", "checkpoint=assets/tunes_clap"],
    "spectral": ["--encoder", "spectral"],
    "latents": _LATENTS,
    "frames": [*_LATENTS, "--unit", "frame"],
}


def main(count: int = 512, folder: Path = FOLDER, out: Path = OUT) -> None:
    """Write the statistics of every style in the space of every encoder."""
    for style in STYLES:
        tunes = folder / style
        shutil.rmtree(tunes, ignore_errors=True)
        call("miniworld", "make", "tunes", str(tunes), "--style", style, "--count", str(count), "--clockwork")
        for word, flags in ENCODERS.items():
            call("reference", str(tunes), "--out", str(out / f"tunes_{style}_{word}.safetensors"), *flags)


def call(*words: str) -> None:
    """Run a command of `mmalign`."""
    application()(list(words), standalone_mode=False)


if __name__ == "__main__":
    given = options(
        __doc__,
        count={"type": at_least_one, "default": 512, "help": "tunes of each style"},
        out={"type": Path, "default": OUT, "help": "the folder of the statistics; %(default)s"},
    )
    with errors_as_sentences():
        main(given.count, out=given.out)
