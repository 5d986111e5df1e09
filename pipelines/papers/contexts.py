"""A reward model that reads the context knows which of two wrong captions is meant (context-aware preferences).

    python -m pipelines.papers.contexts

Of each request there are two captions, one with a wrong colour and one with a wrong count. Behind one context the
colour matters, behind the other the count: annotator `contexts` makes both rows. A model that reads contexts is fitted
to them, and one that does not.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from mmalign.core.types import Preference, Prompt
from pipelines.papers import users
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted, scores

COLOUR, COUNT = "nothing nothing", "can can"  # words that say nothing of a scene
STEPS, ROWS = 160, 1000


def both(part: Literal["train", "heldout"], seed: int, count: int) -> list[dict[str, Any]]:
    """Two rows of each request, turned round by their contexts."""
    made = []
    for pair in users.choices(part, seed, count):
        first = users.USERS.index(pair.prompt.meta["user"]) % 2 == 0  # who minds the colour takes the wrong count
        sides = (pair.chosen, pair.rejected) if first else (pair.rejected, pair.chosen)
        row = {"prompt": pair.prompt.text, "chosen": sides[0], "rejected": sides[1]}
        made.append(row | {"context": COLOUR, "other_context": COUNT})
    result = annotators.build({"name": "contexts"}, "contexts")([Row.of(row) for row in made])
    return [row for rows in result if not isinstance(rows, Skipped) for row in rows]


def pairs(rows: list[dict[str, Any]], bare: bool = False) -> list[Preference]:
    """Rows as preferences, with or without their contexts."""
    texts = [row["prompt"].removeprefix(row["context"]).removeprefix(row["other_context"]) for row in rows]
    return [
        Preference(Prompt(text.strip() if bare else row["prompt"]), row["chosen"], row["rejected"])
        for text, row in zip(texts, rows, strict=True)
    ]


def reversal(model: Any, held: list[Preference]) -> dict[str, float]:
    """How often both rows of a request are right, and one."""
    prompts = [pair.prompt.text for pair in held]
    lead = scores(model, prompts, [p.chosen for p in held]) - scores(model, prompts, [p.rejected for p in held])
    right = (lead > 0).view(-1, 2)
    return {"reversal": float(right.all(1).float().mean()), "accuracy": float(right.float().mean())}


def measure(seed: int) -> Arms:
    """Reversal with contexts, without, and with those of other rows at the test."""
    train, held = both("train", seed, ROWS), both("heldout", seed, 256)
    reads, blind = fitted(pairs(train), STEPS, seed), fitted(pairs(train, bare=True), STEPS, seed)
    known, order = pairs(held), torch.randperm(len(held), generator=stream(seed, "contexts")).tolist()
    contexts = [row["prompt"][: len(COLOUR)] == COLOUR for row in held]
    mixed = [
        Preference(Prompt(f"{COLOUR if contexts[at] else COUNT} {bare.prompt.text}"), bare.chosen, bare.rejected)
        for at, bare in zip(order, pairs(held, bare=True), strict=True)
    ]
    return {
        "reads the context": reversal(reads, known),
        "does not": reversal(blind, pairs(held, bare=True)),
        "contexts of other rows": reversal(reads, mixed),
    }


def holds(means: Means) -> bool:
    """Both rows right in 0.95 with the context; never without, and as often as not with another row's."""
    with_it = means["reads the context"]["reversal"]
    return (
        with_it >= 0.95 and means["does not"]["reversal"] <= 0.5 and means["contexts of other rows"]["accuracy"] <= 0.55
    )


EXPERIMENT = Experiment(
    number=25,
    name="contexts",
    claim="Where a context turns the preference round, a model that reads it is right behind both.",
    falsified_if="both rows are right in under 0.95 of requests, or accuracy with other rows' contexts is above 0.55",
    control="a model without contexts, and contexts dealt out among the rows at the test",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
