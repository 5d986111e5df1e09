"""The model under a better and a worse prompt rewards tokens, which helps DPO to the right word (T-REG).

    python -m pipelines.papers.token_reward

The better prompt is the request, the worse one an everyday wording of the rejected caption. Measured: how often the
token of the rejected caption that is rewarded least is an edited one, and held-out accuracy after 20 steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mmalign.core.experience import Pairs
from mmalign.core.rng import stream
from mmalign.core.types import Preference
from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.language import parse
from mmalign.objectives._credit import TokenReward
from mmalign.objectives.dpo import DPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

STEPS, BETA = 20, 0.1


@dataclass
class ShuffledDPO(DPO):
    """T-REG whose rewards are dealt out anew among the tokens of each text."""

    def collect(self, policy, batch, rng):  # type: ignore[no-untyped-def]
        """The pairs with rewards at the wrong places."""
        pairs: Pairs = super().collect(policy, batch, rng)
        dealt = {}
        for name, side in (("dense_chosen", pairs.chosen), ("dense_rejected", pairs.rejected)):
            assert side.mask is not None
            table = getattr(pairs, name).clone()
            for row, mask in zip(table, side.mask, strict=True):
                places = mask.nonzero()[:, 0]
                row[places] = row[places[torch.randperm(len(places), generator=rng)]]
            dealt[name] = table
        return replace(pairs, **dealt)


def with_worse(pairs: list[Preference], seed: int) -> list[Preference]:
    """The pairs with an everyday wording of the rejected caption in the column `worse`."""
    rng = np.random.default_rng([29, seed])
    worded = [colloquial(parse(pair.rejected), rng) for pair in pairs]
    return [
        replace(pair, prompt=replace(pair.prompt, meta={"worse": text}))
        for pair, text in zip(pairs, worded, strict=True)
    ]


def measure(seed: int) -> Arms:
    """How often the edited word is found, and accuracy with, without, shuffled and ungated."""
    train, held = (with_worse(world.preferences(f"comparisons_{part}"), seed) for part in ("train", "heldout"))
    start, term = world.policy(), TokenReward(worse="{worse}", weight=0.5)
    _, lost, _, wrong = world.edits(start, held)
    assert lost.mask is not None
    table = DPO(token_reward=term).collect(start, held, stream(seed)).dense_rejected
    assert table is not None
    least = table.masked_fill(~lost.mask, torch.inf).argmin(1)
    first = wrong[torch.arange(len(held)), least].float().mean()
    arms: dict[str, dict[str, float]] = {"rewards of tokens": {"edited_word_last": float(first)}}
    objectives = {
        "dpo": DPO(beta=BETA),
        "t-reg": DPO(beta=BETA, token_reward=term),
        "t-reg, shuffled": ShuffledDPO(beta=BETA, token_reward=term),
        "t-reg, w = 1": DPO(beta=BETA, token_reward=replace(term, gated=False)),
    }
    for arm, objective in objectives.items():
        learner = world.policy()
        world.tune(learner, objective, train, STEPS, seed=seed)
        arms[arm] = {"accuracy": world.pair_accuracy(learner, start, held)}
    return arms


def holds(means: Means) -> bool:
    """The edited word is found in four of five pairs, and accuracy rises by 0.02, which shuffling loses."""
    accuracy = {arm: one.get("accuracy", 0.0) for arm, one in means.items()}
    rises = accuracy["t-reg"] >= accuracy["dpo"] + 0.02 and accuracy["t-reg, shuffled"] < accuracy["t-reg"]
    return means["rewards of tokens"]["edited_word_last"] >= 0.8 and rises


EXPERIMENT = Experiment(
    number=10,
    name="token_reward",
    claim="Two prompts of one model find the edited word, and its rewards make DPO more accurate after 20 steps.",
    falsified_if="the edited word is least in under 0.8 of pairs, accuracy under DPO + 0.02, or shuffled as accurate",
    control="the same rewards shuffled among the tokens of each text",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
