"""What a positive set is chosen by decides which distance it lowers: DRAGON's table 5 on the embedded tunes.

    python -m pipelines.set_selection          # assets/results/set_selection.json, and the table

Nothing is trained. The untouched generator makes two clips for each of 96 held-out prompts; every builder chooses one
of each two, and both distances of what it chose are measured: per song (mean over clips of the Fréchet distance of a
clip's own latent frames) and of the whole set. `credit` chooses all rows at once by what each adds to its set's
distance; `greedy_swap` asks of every exchange what it does to the set that is there. Other noise repeats it.

The paper's finding (2504.15217, table 5; the set's distance .106 without a choice, .092 chosen per song, .074 chosen as
a set) is the direction to look for: each way of choosing is best at what it chose by.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import torch

from mmalign.core.config import load
from mmalign.core.files import write_beside
from mmalign.core.rng import stream
from mmalign.core.types import Rollout
from mmalign.objectives.dragon import DRAGON
from mmalign.rewards.fad import Fad
from mmalign.rewards.song_fad import SongFad
from mmalign.run.build import Parts, build
from pipelines._written_out import held_out
from pipelines.music_rewards import CONFIG
from pipelines.results import RESULTS

STYLE = "jig"
_CLAP = {"name": "clap", "checkpoint": "assets/tunes_clap"}
_SPACE = {"name": "latents", "space": "tunes_sa3"}


def distances() -> dict[str, Any]:
    """What is measured of a set, and chosen by."""
    reference = f"assets/reference/tunes_{STYLE}"
    return {
        "per song": SongFad(f"{reference}_frames.safetensors", encoder=_SPACE),
        "set, latents": Fad(f"{reference}_latents.safetensors", encoder=_SPACE),
        "set, CLAP": Fad(f"{reference}_clap.safetensors", encoder=_CLAP),
    }


def choices() -> dict[str, DRAGON | None]:
    """Every way to choose; None takes the first of each two."""
    by = distances()
    texts = Fad(f"assets/exemplars/{STYLE}.txt", encoder=_CLAP, pairs="assets/exemplars/mixed/rows.jsonl")
    return {
        "no choice": None,
        "per song": DRAGON(by["per song"], builder="pair"),
        "set (latents), credit": DRAGON(by["set, latents"], builder="pair"),
        "set (latents), greedy swap": DRAGON(by["set, latents"], builder="greedy_swap"),
        "set (CLAP), credit": DRAGON(by["set, CLAP"], builder="pair"),
        "set (CLAP), greedy swap": DRAGON(by["set, CLAP"], builder="greedy_swap"),
        "set (CLAP) of texts only, greedy swap": DRAGON(texts, builder="greedy_swap"),
    }


@torch.no_grad()
def measured(chosen: Rollout) -> dict[str, float]:
    """Every distance of one set; lower is nearer."""
    found = {}
    for name, reward in distances().items():
        value = reward(chosen).value.mean() if callable(reward) else reward.score(reward.embed(chosen))
        found[name] = -float(value)
    return found


def table_of(parts: Parts, seed: int, count: int) -> dict[str, dict[str, float]]:
    """All choices from the same clips."""
    prompts = held_out(parts)[:count]
    rows = {}
    for name, objective in choices().items():
        rng = stream(seed, "set_selection")
        if objective is None:
            both = parts.policy.sample([prompt for prompt in prompts for _ in range(2)], rng)
            rows[name] = measured(both[torch.arange(0, len(both), 2)])
        else:
            rows[name] = measured(objective.collect(parts.policy, prompts, rng).chosen)
    return rows


def main(count: int = 96, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Measure, write the JSON and print the means over seeds."""
    parts = build(load(CONFIG))
    parts.load()
    runs = [table_of(parts, seed, count) for seed in seeds]
    mean = {name: {of: statistics.fmean(run[name][of] for run in runs) for of in runs[0][name]} for name in runs[0]}
    result = {"command": "python -m pipelines.set_selection", "style": STYLE, "n": count, "mean": mean, "seeds": runs}
    with write_beside(RESULTS / "selection" / "set_selection.json") as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(mean))


def markdown(mean: dict[str, dict[str, float]]) -> str:
    """The means as a table."""
    names = list(next(iter(mean.values())))
    lines = [f"| chosen by | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    return "\n".join(lines + [f"| {row} | {' | '.join(f'{of[n]:.4f}' for n in names)} |" for row, of in mean.items()])


if __name__ == "__main__":
    main()
