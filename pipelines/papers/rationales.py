"""Rewrites that the policy itself embeds like those of another wording of the same request (GRACE).

    python -m pipelines.papers.rationales

Two everyday wordings of each request travel together; GRPO follows reward `embedding_contrast`, the cosines of the mean
last hidden states over what the rewriter writes. Measured on held-out requests: how often the rewrite of one wording
has that of the other as its nearest among sixteen (fifteen are of near misses of the request), by rewrites that the
model makes and reads greedily; and the share of right clauses of the rewrites.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.grammar import hard_negatives
from mmalign.miniworld.language import parse
from mmalign.objectives.grpo import GRPO
from mmalign.policies.tokens import Tokens
from mmalign.rewards.text.embedding_contrast import EmbeddingContrast
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

UPDATES, QUESTIONS, CANDIDATES = 60, 4, 16


class Shuffled:
    """A reward whose values are dealt out anew within each group."""

    modalities = frozenset({"text"})
    differentiable = False
    batch_dependent = True
    reads_features = True

    def __init__(self, reward: EmbeddingContrast, seed: int) -> None:
        self.reward, self.range, self.rng = reward, reward.range, stream(seed, "shuffled")

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B outputs, whole steps of them."""
        scores = self.reward(rollout)
        order = torch.arange(len(rollout))
        for number in rollout.group.unique():
            rows = (rollout.group == number).nonzero()[:, 0]
            order[rows] = rows[torch.randperm(len(rows), generator=self.rng)]
        return replace(scores, value=scores.value[order], status=scores.status[order])


def wordings(seed: int) -> list[list[Prompt]]:
    """Two wordings of each training request."""
    rng = np.random.default_rng([2, seed])
    return [
        [Prompt(text, meta={"view_of": number}) for text in (row["prompt"], colloquial(parse(row["request"]), rng))]
        for number, row in enumerate(world.rows("requests_train"))
    ]


def found(learner: Tokens, seed: int, count: int = 128) -> float:
    """How often the nearest of sixteen rewrites is that of the other wording."""
    rng, texts = np.random.default_rng([20, seed]), []
    for row in world.rows("requests_heldout")[:count]:
        request = parse(row["request"])
        near = hard_negatives(request, CANDIDATES - 1, rng, split="any")
        texts.append([row["prompt"], *(colloquial(each, rng) for each in (request, *near))])
    prompts = [Prompt(text) for each in texts for text in each]
    with torch.no_grad():
        made = learner.generate(prompts, stream(0, "greedy"))
        unit = torch.nn.functional.normalize(learner.features(made), dim=1).split([len(each) for each in texts])
    cosines = [one[1:] @ one[0] for one in unit]
    return sum(float(each[0] > each[1:].max()) for each in cosines) / len(cosines)


def measure(seed: int) -> Arms:
    """Retrieval and clauses of the start, and after updates by the reward and by the shuffled one."""
    data, reward = wordings(seed), EmbeddingContrast()
    arms = {}
    for arm, given in (("start", None), ("grace", reward), ("shuffled", Shuffled(reward, seed))):
        learner = world.policy(keep_features=True)
        if given is not None:
            objective = GRPO(reward=given, group_size=8, std="none", beta=0.0)
            world.tune(learner, objective, data, UPDATES, size=QUESTIONS, lr=1e-4, seed=seed)
        arms[arm] = {"recall@1": found(learner, seed), **world.truth(learner)}
    return arms


def holds(means: Means) -> bool:
    """Retrieval rises by 0.05, more than by shuffled rewards, and the rewrites lose at most 0.02 of right clauses."""
    start, own, other = (means[arm] for arm in ("start", "grace", "shuffled"))
    rises = own["recall@1"] >= start["recall@1"] + 0.05 and own["recall@1"] > other["recall@1"]
    return rises and own["clauses"] >= start["clauses"] - 0.02


EXPERIMENT = Experiment(
    number=2,
    name="rationales",
    claim="By the contrast of its own states the rewriter's texts find their other wording more often, and stay true.",
    falsified_if="recall at 1 of sixteen rises by less than 0.05 or no more than by shuffled rewards, or right clauses "
    "fall by over 0.02",
    control="the rewards dealt out anew within each group",
    measure=measure,
    holds=holds,
    caveat="Rewrites of requests stand for rationales; a request with fewer near misses has fewer candidates.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
