"""Two kinds of users, and a reward model that tells them apart by their ideal points (PAL).

    python -m pipelines.papers.users

Of each request there are two captions, one with a wrong colour and one with a wrong count. Half of six users mind the
colour, half the count. A model with an ideal point for each user is fitted to their choices, and one without users.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmalign.core.types import Preference, Prompt
from mmalign.miniworld.language import parse
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import accuracy, fitted

USERS = ["ann", "bo", "cy", "dee", "eve", "finn"]
STEPS, ROWS = 100, 800
COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
COUNTS = {"a": "two", "two": "three", "three": "four", "four": "two"}


def choices(name: str, seed: int, count: int) -> list[Preference]:
    """What users choose: who minds the colour takes the wrong count, and the other way round."""
    rng = np.random.default_rng([37, seed])
    made: list[Preference] = []
    for row in world.rows(name):
        words = row["request"].split()
        coloured = [i for i, word in enumerate(words) if word in COLOURS]
        if len(made) == count or not coloured or words[0] not in COUNTS or len(parse(row["request"]).groups) > 1:
            continue
        colour = list(words)
        colour[coloured[0]] = str(rng.choice([c for c in COLOURS if c != words[coloured[0]]]))
        number = [COUNTS[words[0]], *words[1:]]
        wrong_colour, wrong_count = " ".join(colour), " ".join(number)
        user = int(rng.integers(len(USERS)))
        sides = (wrong_count, wrong_colour) if user % 2 == 0 else (wrong_colour, wrong_count)
        made.append(Preference(Prompt(row["prompt"], meta={"user": USERS[user]}), *sides))
    return made


def measure(seed: int) -> Arms:
    """Held-out accuracy with users, without, and with users dealt out at random."""
    train, held = choices("requests_train", seed, ROWS), choices("requests_heldout", seed, 256)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=rng).tolist()
    mixed = [
        Preference(Prompt(pair.prompt.text, meta=train[at].prompt.meta), pair.chosen, pair.rejected)
        for pair, at in zip(train, order, strict=True)
    ]
    ideal: dict[str, Any] = {"kind": "ideal_point", "users": USERS}
    models = {
        "ideal points": fitted(train, STEPS, seed, ideal),
        "no users": fitted(train, STEPS, seed),
        "users at random": fitted(mixed, STEPS, seed, ideal),
    }
    return {arm: {"accuracy": with_users(model, held)} for arm, model in models.items()}


@torch.no_grad()
def with_users(model: Any, pairs: list[Preference]) -> float:
    """Accuracy where each prompt says whose choice it is."""
    if not pairs:
        return accuracy(model, pairs)
    prompts = [pair.prompt for pair in pairs]
    won, lost = (
        model.score(model.observe(prompts, [getattr(p, side) for p in pairs])) for side in ("chosen", "rejected")
    )
    lead = won - lost
    return float(((lead > 0).float() + 0.5 * (lead == 0).float()).mean())


def holds(means: Means) -> bool:
    """Known users at 0.9 and more, a model without users at 0.6 and less."""
    return means["ideal points"]["accuracy"] >= 0.9 and means["no users"]["accuracy"] <= 0.6


EXPERIMENT = Experiment(
    number=31,
    name="users",
    claim="Where users disagree by construction, ideal points tell their choices and a model without users cannot.",
    falsified_if="accuracy of known users is below 0.9, or a model without users is above 0.6",
    control="the same choices with their users dealt out at random",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
