"""Two kinds of users, and a reward model that tells them apart by their ideal points (PAL).

    python -m pipelines.papers.users

Of each request there are two captions, one with a wrong colour and one with a wrong count. Half of six users mind the
colour, half the count. A model with an ideal point for each user is fitted to their choices, and one without users; one
without is also fitted to those who mind the colour alone.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from mmalign.core.types import Preference, Prompt
from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.language import Description, Group, make_request
from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted

USERS = ["ann", "bo", "cy", "dee", "eve", "finn"]
STEPS, ROWS, HELD = 100, 800, 256


def choices(part: Literal["train", "heldout"], seed: int, count: int) -> list[Preference]:
    """What users choose: who minds the colour takes the wrong count, and the other way round.

    A fifth of the triples of count, colour and shape is kept for the part `heldout`.
    """
    rng = np.random.default_rng([37, seed, part == "train"])
    made: list[Preference] = []
    while len(made) < count:
        number, colour, shape = int(rng.integers(MAX_THINGS)), int(rng.integers(len(COLORS))), int(rng.integers(5))
        if ((3 * number + 2 * colour + shape) % 5 == 0) != (part == "heldout"):
            continue
        kind = Description(SHAPES[shape], COLORS[colour], str(rng.choice([*SIZES, ""])) or None)
        request = make_request((Group(number + 1, kind),))
        other = str(rng.choice([each for each in COLORS if each != kind.color]))
        wrong_colour = make_request((Group(number + 1, kind._replace(color=other)),)).text
        others = [each for each in range(1, MAX_THINGS + 1) if each != number + 1]
        wrong_count = make_request((Group(int(rng.choice(others)), kind),)).text
        user = int(rng.integers(len(USERS)))
        sides = (wrong_count, wrong_colour) if user % 2 == 0 else (wrong_colour, wrong_count)
        made.append(Preference(Prompt(colloquial(request, rng), meta={"user": USERS[user]}), *sides))
    return made


def measure(seed: int) -> Arms:
    """Held-out accuracy with users, without, and with users dealt out at random."""
    train, held = choices("train", seed, ROWS), choices("heldout", seed, HELD)
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
    alike, known = ([pair for pair in pairs if minds_colour(pair)] for pairs in (train, held))
    arms = {arm: {"accuracy": with_users(model, held)} for arm, model in models.items()}
    return {**arms, "one kind, no users": {"accuracy": with_users(fitted(alike, STEPS, seed), known)}}


def minds_colour(pair: Preference) -> bool:
    """Is it the choice of a user who minds the colour?"""
    return USERS.index(pair.prompt.meta["user"]) % 2 == 0


@torch.no_grad()
def with_users(model: Any, pairs: list[Preference]) -> float:
    """Accuracy where each prompt says whose choice it is."""
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
    control="the same choices with their users dealt out at random, and choices of one kind of users alone",
    measure=measure,
    holds=holds,
    caveat="A first run had but 163 pairs, which is all that the file of requests holds, some with a noun in the wrong "
    "number; it did not hold either and is kept in 31_users_first.json.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
