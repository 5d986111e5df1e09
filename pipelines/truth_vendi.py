"""How diverse the truth itself is: the Vendi score of true pictures and sounds for the held-out prompts of the tables.

    python -m pipelines.truth_vendi          # assets/results/selection/truth_vendi.json

The worlds draw and play every prompt, three times over, as its text demands and at random where it leaves a choice. A
generator whose set scores higher already has nothing to gain but outputs that are not what was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.core.files import assets_root
from mmalign.core.types import Audio, Output, Prompt, Rollout
from mmalign.rewards.sets.vendi import Vendi
from pipelines._command_line import at_least_one, options
from pipelines.results import RESULTS, keep


def pictures(texts: list[str], seed: int) -> Output:
    """A true picture of each caption, (B, 3, 64, 64)."""
    from mmalign.miniworld.grammar import parse, sample_scene
    from mmalign.miniworld.scenes import render

    rng = np.random.default_rng([41, seed])
    return torch.from_numpy(np.stack([render(sample_scene(parse(text), rng), rng) for text in texts])).float()


def sounds(texts: list[str], seed: int) -> Output:
    """A true clip of each caption, (B, 1, S)."""
    from mmalign.miniworld.tunes.clips import play_clips
    from mmalign.miniworld.tunes.grammar import parse
    from mmalign.miniworld.tunes.tune import RATE

    clips, _, _ = play_clips(len(texts), seed, "heldout", [parse(text) for text in texts])
    return Audio(torch.from_numpy(clips)[:, None], RATE)


OUT = RESULTS / "selection" / "truth_vendi.json"

#: Of each world: its prompts, what shows them, the encoder its table measures with.
WORLDS: dict[str, tuple[str, Any, Any]] = {
    "pictures": ("scenes_heldout.txt", pictures, "assets/scenes_judge"),
    "sounds": ("tunes_heldout.txt", sounds, {"name": "clap", "checkpoint": "assets/tunes_clap"}),
}


def main(count: int = 256, seeds: tuple[int, ...] = (0, 1, 2), out: Path = OUT) -> None:
    """Measure and write the JSON."""
    scores = {}
    for world, (file, made, encoder) in WORLDS.items():
        texts = (assets_root() / "prompts" / file).read_text(encoding="utf-8").splitlines()[:count]
        prompts, vendi = [Prompt(text) for text in texts], Vendi(encoder)
        sets = (Rollout(prompts, made(texts, seed), torch.arange(len(texts))) for seed in seeds)
        scores[world] = [round(float(vendi.score(vendi.embed(shown))), 4) for shown in sets]
        print(f"{world}: {scores[world]}")
    command = "python -m pipelines.truth_vendi"
    keep(out, {"command": command, "commit": commit(), "count": count, **scores})


if __name__ == "__main__":
    given = options(
        __doc__,
        count={"type": at_least_one, "default": 256, "help": "held-out prompts of each world"},
        seeds={"type": int, "nargs": "+", "default": [0, 1, 2], "help": "of the noise"},
        out={"type": Path, "default": OUT, "help": "the JSON to write; %(default)s"},
    )
    with errors_as_sentences():
        main(given.count, tuple(given.seeds), given.out)
