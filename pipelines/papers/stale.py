"""Contrastive policy gradient learns from outputs that are not the policy's own any more (CoPG).

    python -m pipelines.papers.stale

Four answers of the start to each of 64 requests are drawn and scored once. CoPG and GRPO with its importance ratios
then take 100 updates on these 256 outputs and no others. Measured on held-out requests: clauses and meaning of greedy
answers, and how far the policy has moved.
"""

from __future__ import annotations

from typing import Any

import torch

from mmalign.core.rng import stream
from mmalign.core.types import Rollout, Scores
from mmalign.objectives.copg import CoPG
from mmalign.objectives.grpo import GRPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

PROMPTS, GROUP, UPDATES, BETA = 64, 4, 100, 0.1


class Shuffled(world.Truth):
    """The rewards of a group dealt out anew among its answers."""

    def __init__(self, seed: int) -> None:
        self.rng = stream(seed, "shuffled")

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B answers."""
        value = super().__call__(rollout).value.clone()
        for group in rollout.group.unique():
            places = (rollout.group == group).nonzero()[:, 0]
            value[places] = value[places[torch.randperm(len(places), generator=self.rng)]]
        return Scores.of(value)


def measure(seed: int) -> Arms:
    """Truth, clauses and drift of every arm."""
    start, order = world.policy(train="frozen"), stream(seed, "prompts")
    every = world.requests()
    prompts = [every[i] for i in torch.randperm(len(every), generator=order)[:PROMPTS].tolist()]
    held = world.requests("requests_heldout", 128)
    said = start.observe(held, [prompt.meta["request"] for prompt in held])
    assert said.mask is not None
    options: dict[str, Any] = {"group_size": GROUP, "beta": BETA, "online": "all_pairs"}
    objectives: dict[str, Any] = {
        "copg": CoPG(reward=world.Truth(), **options),
        "grpo": GRPO(reward=world.Truth(), group_size=GROUP, std="none"),
        "copg, shuffled rewards": CoPG(reward=Shuffled(seed), **options),
    }
    arms: dict[str, dict[str, float]] = {"start": {**world.truth(start), "drift": 0.0}}
    for arm, objective in objectives.items():
        learner = world.policy()
        world.on_fixed(learner, objective, prompts, UPDATES, seed=seed)
        arms[arm] = {**world.truth(learner), "drift": world.drift(learner, start, said, said.mask)}
    return arms


def holds(means: Means) -> bool:
    """Clauses rise above the start's, above GRPO's on the same outputs, and above those of shuffled rewards."""
    clauses = {arm: one["clauses"] for arm, one in means.items()}
    return clauses["copg"] > max(clauses["start"], clauses["grpo"], clauses["copg, shuffled rewards"])


EXPERIMENT = Experiment(
    number=4,
    name="stale",
    claim="On 256 answers of the start, scored once, CoPG goes further than GRPO with importance ratios.",
    falsified_if="right clauses are not above those of the start and of GRPO on the same answers",
    control="the rewards dealt out anew within each group",
    measure=measure,
    holds=holds,
    caveat="One learning rate and one β for all; GRPO's clip of 0.2 keeps it near the start.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
