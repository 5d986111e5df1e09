"""Which hacks relevance × length × no repetition punishes, and which need a reference answer (R³).

    python -m pipelines.papers.relevance

To every held-out request there is the right caption and three hacks: the request copied, the caption four times over,
and one word of it. A text encoder judges how near each is to the request, or to a reference: how often is a hack
worth the right caption?
"""

from __future__ import annotations

from typing import Any

import torch

from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.rewards.combine import combinations
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ENCODER, ROWS, HACKS = "assets/scenes_clip", 128, ("copied", "repeated", "one word")


def mixes() -> dict[str, Any]:
    """Relevance alone, the sum and the product of the paper's terms, and the product with relevance to a reference."""
    near, known = (load_reward("relevance", encoder=ENCODER, column=column) for column in ("", "request"))
    length, fresh = load_reward("length", low=3.0, rise=3.0), load_reward("repetition")

    def mixed(relevance: Any, how: str) -> Mix:
        slots = {
            "near": Slot(relevance, map=(-1.0, 1.0)),
            "length": Slot(length),
            "fresh": Slot(fresh, map=(-1.0, 0.0)),
        }
        return Mix(slots, combinations.build({"name": how}, "combine"))

    return {
        "relevance": near,
        "sum": mixed(near, "weighted_sum"),
        "product": mixed(near, "product"),
        "product, to the reference": mixed(known, "product"),
    }


def measure(seed: int) -> Arms:
    """How often each hack is worth as much as the right caption, by reward."""
    every = world.rows("requests_heldout")
    chosen = [every[i] for i in torch.randperm(len(every), generator=stream(seed, "rows"))[:ROWS].tolist()]
    prompts, texts = [], []
    for row in chosen:
        right = row["request"]
        prompts += [Prompt(row["prompt"], meta={"request": right})] * 4
        texts += [right, row["prompt"], " ".join([right] * 4), right.split()[-1]]
    arms = {}
    for arm, reward in mixes().items():
        value = reward(Rollout.of(prompts, texts)).value.view(-1, 4)
        wins = (value[:, 1:] >= value[:, :1]).float().mean(0).tolist()
        arms[arm] = dict(zip(HACKS, wins, strict=True))
    return arms


def holds(means: Means) -> bool:
    """The product punishes repetition, one word and, with a reference, copying, which relevance alone rewards."""
    own, known = means["product"], means["product, to the reference"]
    punished = max(own["repeated"], own["one word"], *known.values()) <= 0.05
    return punished and means["relevance"]["copied"] > 0.5


EXPERIMENT = Experiment(
    number=18,
    name="relevance",
    claim="The product punishes repetition and single words; that copying does not pay takes a reference.",
    falsified_if="repetition or one word is worth the right answer in over 0.05 of rows, or copying with a reference",
    control="relevance alone, which copying maximises, and the sum of the same terms",
    measure=measure,
    holds=holds,
    caveat="No policy learns; the encoder was trained on captions, not on requests.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
