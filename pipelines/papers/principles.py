"""A reward model that reads a principle, on principles that it never saw put together (RewardAnything).

    python -m pipelines.papers.principles

Six principles ask for more or fewer things, colours or sizes, in two words each, as "higher things" or "lower paint". A
reward model on the rewriter is fitted to pairs of captions under four of them, and measured on other captions under
these, under the two that were kept from it, under the opposite of each, and under principles dealt out at random; one
without principles is fitted to the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmalign.core.types import Preference, Prompt
from mmalign.miniworld.language import parse
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import accuracy, fitted

MORE, FEWER = "higher", "lower"
ATTRIBUTES = ("things", "paint", "big")  # things, colours that are said, sizes that are said
SEEN = ((FEWER, "things"), (MORE, "paint"), (FEWER, "paint"), (MORE, "big"))
UNSEEN = ((MORE, "things"), (FEWER, "big"))
NOTHING, STEPS, ROWS, HELD = "show me", 160, 300, 150

Principle = tuple[str, str]


def amount(caption: str, attribute: str) -> int:
    """How many things, colours or sizes a caption has."""
    groups = parse(caption).groups
    if attribute == "things":
        return sum(group.count for group in groups)
    return sum((group.kind.color if attribute == "paint" else group.kind.size) is not None for group in groups)


def pairs(name: str, principles: Sequence[Principle], count: int, rng: np.random.Generator) -> list[Preference]:
    """Pairs of captions by chance that differ in what each principle is about, `count` of each principle."""
    captions = [row["request"] for row in world.rows(name)]
    made: list[Preference] = []
    for way, attribute in principles:
        begun = len(made)
        while len(made) < begun + count:
            one, other = (captions[int(at)] for at in rng.integers(len(captions), size=2))
            lead = amount(one, attribute) - amount(other, attribute)
            if lead:
                sides = (one, other) if (lead > 0) == (way == MORE) else (other, one)
                made.append(Preference(Prompt(f"{way} {attribute}"), *sides))
    return made


def under(rows: Sequence[Preference], prompts: Sequence[str]) -> list[Preference]:
    """The same pairs under other prompts."""
    return [replace(row, prompt=Prompt(prompt)) for row, prompt in zip(rows, prompts, strict=True)]


def opposite(rows: Sequence[Preference]) -> list[Preference]:
    """The same pairs under the opposite of their principles, which turns them round."""
    other = {MORE: FEWER, FEWER: MORE}
    turned = [" ".join([other[row.prompt.text.split()[0]], row.prompt.text.split()[1]]) for row in rows]
    return [replace(row, chosen=row.rejected, rejected=row.chosen) for row in under(rows, turned)]


def measure(seed: int) -> Arms:
    """Accuracy by what principles are read."""
    rng = np.random.default_rng([13, seed])
    train = pairs("requests_train", SEEN, ROWS, rng)
    seen, unseen = (pairs("requests_heldout", principles, HELD, rng) for principles in (SEEN, UNSEEN))
    reads, fixed = fitted(train, STEPS, seed), fitted(under(train, [NOTHING] * len(train)), STEPS, seed)
    dealt = [seen[int(i)].prompt.text for i in rng.permutation(len(seen))]
    return {
        "reads the principle": {
            "seen": accuracy(reads, seen),
            "unseen": accuracy(reads, unseen),
            "opposite": accuracy(reads, opposite([row for row in seen if "paint" in row.prompt.text])),
        },
        "does not": {
            "seen": accuracy(fixed, under(seen, [NOTHING] * len(seen))),
            "unseen": accuracy(fixed, under(unseen, [NOTHING] * len(unseen))),
        },
        "principles at random": {"seen": accuracy(reads, under(seen, dealt))},
    }


def holds(means: Means) -> bool:
    """Unseen principles at 0.70 and more, where a model without them is at 0.55 and less."""
    own, fixed = means["reads the principle"], means["does not"]
    return own["unseen"] >= 0.7 and own["seen"] >= 0.7 and fixed["unseen"] <= 0.55


EXPERIMENT = Experiment(
    number=13,
    name="principles",
    claim="A reward model that reads principles follows those whose words it saw apart and never together.",
    falsified_if="accuracy is below 0.70 under unseen or seen principles, or above 0.55 under unseen ones without "
    "reading them",
    control="a model without principles on the same pairs, and principles dealt out at random at the test",
    measure=measure,
    holds=holds,
    caveat="Two words stand for a principle; the rewriter cannot read any that is put in words of its own.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
