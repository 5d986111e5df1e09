"""What a positive set is chosen by decides which distance it lowers: DRAGON's table 5 on the embedded tunes.

    python -m pipelines.set_selection          # assets/results/selection/set_selection.json, and the table

Nothing is trained. The untouched generator makes two clips for each of 96 held-out prompts; every builder chooses one
of each two, and the distances of what it chose are measured: per song (mean over clips of the Fréchet distance of a
clip's own latent frames) and of the whole set. `credit` chooses all rows at once by what each adds to its set's
distance; `greedy_swap` asks of every exchange what it does to the set that is there. Other noise repeats it.

The paper's finding (2504.15217, table 5; the set's distance .106 without a choice, .092 chosen per song, .074 chosen as
a set) is the direction to look for: each way of choosing is best at what it chose by.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, cast

import torch

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.core.config import load
from mmalign.core.protocols import Policy
from mmalign.core.rng import stream
from mmalign.core.types import Rollout
from mmalign.objectives.dragon import DRAGON
from mmalign.rewards.sets.fad import Fad
from mmalign.rewards.sound.song_fad import SongFad
from mmalign.run.build import Parts, build
from mmalign.run.train import held_out
from pipelines._command_line import at_least_one, options
from pipelines.music_rewards import CONFIG
from pipelines.results import RESULTS, keep

OUT = RESULTS / "selection" / "set_selection.json"
STYLE = "jig"
_CLAP = {"name": "clap", "checkpoint": "assets/tunes_clap"}
_SPACE = {"name": "latents", "space": "tunes_sa3"}


def distances() -> dict[str, Any]:
    """The distances that are measured of a set, and by which sets are chosen."""
    reference = f"assets/reference/tunes_{STYLE}"
    return {
        "per song": SongFad(f"{reference}_frames.safetensors", encoder=_SPACE),
        "set, latents": Fad(f"{reference}_latents.safetensors", encoder=_SPACE),
        "set, CLAP": Fad(f"{reference}_clap.safetensors", encoder=_CLAP),
    }


def choices(by: dict[str, Any]) -> dict[str, DRAGON]:
    """Every way to choose a set, by its name."""
    texts = Fad(f"assets/exemplars/{STYLE}.txt", encoder=_CLAP, pairs="assets/exemplars/mixed/rows.jsonl", least_rows=6)
    return {
        "per song": DRAGON(by["per song"], builder="pair"),
        "set (latents), credit": DRAGON(by["set, latents"], builder="pair"),
        "set (latents), greedy swap": DRAGON(by["set, latents"], builder="greedy_swap"),
        "set (CLAP), credit": DRAGON(by["set, CLAP"], builder="pair"),
        "set (CLAP), greedy swap": DRAGON(by["set, CLAP"], builder="greedy_swap"),
        "set (CLAP) of texts only, greedy swap": DRAGON(texts, builder="greedy_swap"),
    }


def measured(chosen: Rollout, by: dict[str, Any]) -> dict[str, float]:
    """Every distance of one set; lower is nearer."""
    by_name = {}
    for name, reward in by.items():
        value = reward(chosen).value.mean() if callable(reward) else reward.score(reward.embed(chosen))
        by_name[name] = -float(value)
    return by_name


@torch.no_grad()
def table_of(parts: Parts, seed: int, count: int, by: dict[str, Any]) -> dict[str, dict[str, float]]:
    """All choices from the same clips; without a choice, the first of each two."""
    prompts = [prompt for prompt in held_out(parts)[:count] for _ in range(2)]
    both = cast(Policy, parts.policy).sample(prompts, stream(seed, "set_selection"))
    chosen = {name: objective.build(both).chosen for name, objective in choices(by).items()}
    return {name: measured(rows, by) for name, rows in {"no choice": both[::2], **chosen}.items()}


def main(count: int = 96, seeds: tuple[int, ...] = (0, 1, 2), out: Path = OUT) -> None:
    """Measure, write the JSON and print the means over seeds."""
    parts = build(load(CONFIG))
    parts.load()
    by = distances()
    runs = [table_of(parts, seed, count, by) for seed in seeds]
    mean = {name: {of: statistics.fmean(run[name][of] for run in runs) for of in runs[0][name]} for name in runs[0]}
    facts = {"command": "python -m pipelines.set_selection", "commit": commit(), "style": STYLE, "n": count}
    keep(out, {**facts, "mean": mean, "seeds": runs})
    print(markdown(mean))


def markdown(mean: dict[str, dict[str, float]]) -> str:
    """The means as a table."""
    names = list(next(iter(mean.values())))
    lines = [f"| chosen by | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    return "\n".join(lines + [f"| {row} | {' | '.join(f'{of[n]:.4f}' for n in names)} |" for row, of in mean.items()])


if __name__ == "__main__":
    given = options(
        __doc__,
        count={"type": at_least_one, "default": 96, "help": "held-out prompts"},
        seeds={"type": int, "nargs": "+", "default": [0, 1, 2], "help": "of the noise"},
        out={"type": Path, "default": OUT, "help": "the JSON to write; %(default)s"},
    )
    with errors_as_sentences():
        main(given.count, tuple(given.seeds), given.out)
