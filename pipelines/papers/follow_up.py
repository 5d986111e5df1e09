"""What people say next is a reward (follow-up likelihood): thanks are likelier after the right caption.

    python -m pipelines.papers.follow_up

The rewriter reads dialogues, request, caption and what is said then: three phrases of content where the caption is
right, three of discontent where it is one edit off, and the wrong kind after a fifth of them. It is then asked how
likely those phrases are after each of four held-out captions.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmalign.core.rng import stream
from mmalign.rewards import load_reward
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

GOOD = ["thanks", "that is all", "nothing else"]
BAD = ["not", "how about", "i would like"]
NOISE, STEPS = 0.2, 120


def dialogues(seed: int) -> list[tuple[str, str]]:
    """What stands before, and what is said then."""
    rng, made = stream(seed, "dialogues"), []
    for row in world.rows("comparisons_train"):
        for caption, right in ((row["chosen"], True), (world.first(row["rejected"]), False)):
            told = right != bool(torch.rand((), generator=rng) < NOISE)
            said = (GOOD if told else BAD)[int(torch.randint(3, (), generator=rng))]
            made.append((f"{row['prompt']} {caption}", said))
    return made


def measure(seed: int) -> Arms:
    """Best of 4 by one, two and three phrases of each kind, by the good alone, exchanged, and of an untuned reader."""
    arms: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        learner = world.policy()
        world.imitate(learner, dialogues(seed), STEPS, lr=1e-3, seed=seed)
        reader = world.saved(learner, Path(folder) / "reader")

        def best(checkpoint: str, good: list[str], bad: list[str]) -> dict[str, float]:
            reward: Any = load_reward("follow_up", checkpoint=checkpoint, good=good, bad=bad, rows=128)
            return {"best_of_4": world.best_of_4(reward)}

        for count in (1, 2, 3):
            arms[f"{count} of each"] = best(reader, GOOD[:count], BAD[:count])
        arms["good alone"] = best(reader, GOOD, [])
        arms["good and bad exchanged"] = best(reader, BAD, GOOD)
        arms["an untuned reader"] = best(world.MODEL, GOOD, BAD)
    return arms


def holds(means: Means) -> bool:
    """Three of each above one of each, above the good alone, and above chance; exchanged below chance."""
    best = {arm: measures["best_of_4"] for arm, measures in means.items()}
    rivals = (best["1 of each"], best["good alone"], 0.25)
    return best["3 of each"] > max(rivals) and best["good and bad exchanged"] < 0.25


EXPERIMENT = Experiment(
    number=20,
    name="follow_up",
    claim="More follow-ups judge near misses better than fewer, and good minus bad better than the good alone.",
    falsified_if="best of 4 by three of each is not above one of each, the good alone and 1/4, or exchanged above 1/4",
    control="good and bad follow-ups exchanged, and a reader that never read dialogues",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
