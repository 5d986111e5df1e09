"""What a regression learns of a judge that is asked about a quarter of the outputs (ONI's online reward model).

    python -m pipelines.papers.budget

The rewriter's answers to 160 requests, four to each, come in steps of 32. Reward `budgeted` asks the exact judge about
all of the first 64, then about a quarter; a ridge regression on a text encoder's embeddings stands in for the rest.
Measured on those of the last half that were not judged: rank correlation with the truth, and pairs of answers to one
request that are ranked right.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr

from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import load_reward, rule
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, GROUP, STEP, ENCODER = 160, 4, 8, "assets/scenes_clip"


@rule(modalities={"text"}, range=(0.0, 1.0))
def clauses(output: str, request: str) -> float:
    """The share of clauses that an answer has right."""
    return world.clause_share(output, request)


@rule(modalities={"text"}, range=(0.0, 1.0))
def dealt_out(output: str, other: str) -> float:
    """The same of another request: a judge that says nothing of the row."""
    return world.clause_share(output, other)


def measure(seed: int) -> Arms:
    """What the regression is worth, of the judge and of one that judges by other requests."""
    every, order = world.rows("requests_train"), torch.randperm(1000, generator=stream(seed, "rows")).tolist()
    chosen = [every[i] for i in order[:ROWS]]
    start, others = world.policy(train="frozen"), [every[i]["request"] for i in order[ROWS : 2 * ROWS]]
    prompts = [
        Prompt(row["prompt"], meta={"request": row["request"], "other": other})
        for row, other in zip(chosen, others, strict=True)
        for _ in range(GROUP)
    ]
    said = world.sampled(start, [prompt.text for prompt in prompts], seed)
    truth = torch.tensor([world.clause_share(text, p.meta["request"]) for text, p in zip(said, prompts, strict=True)])
    arms: dict[str, dict[str, float]] = {}
    for arm, judge in (("regression", "clauses"), ("judged by other requests", "dealt_out")):
        inner = {"name": f"pipelines.papers.budget:{judge}"}
        reward: Any = load_reward("budgeted", {"pipelines.papers.budget"}, inner=inner, encoder=ENCODER)
        reward.adapting = True
        predicted, judged = torch.full((len(said),), torch.nan), torch.zeros(len(said))
        for first in range(0, len(said), STEP * GROUP):
            rows = slice(first, first + STEP * GROUP)
            parts = reward(Rollout.of(prompts[rows], said[rows])).parts
            predicted[rows], judged[rows] = parts["predicted"], parts["judged"]
        late = (judged == 0) & (torch.arange(len(said)) >= len(said) // 2)
        arms[arm] = {
            "spearman": float(spearmanr(predicted[late].numpy(), truth[late].numpy()).statistic),
            "pairs": within(predicted, truth, late),
            "judged": float(judged.mean()),
        }
    return arms


def within(predicted: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> float:
    """The share of pairs of one request, of unequal truth, that the predictions rank right; a tie is half."""
    right, pairs = 0.0, 0
    for first in range(0, len(truth), GROUP):
        rows = [i for i in range(first, first + GROUP) if known[i]]
        for i in rows:
            for j in rows:
                if truth[i] > truth[j]:
                    pairs += 1
                    right += float(predicted[i] > predicted[j]) + 0.5 * float(predicted[i] == predicted[j])
    return right / max(pairs, 1)


def holds(means: Means) -> bool:
    """Correlated at 0.4 and more, pairs of a request ranked better than by chance and than by the other judge."""
    own, other = means["regression"], means["judged by other requests"]
    return own["spearman"] >= 0.4 and own["pairs"] > max(0.55, other["pairs"])


EXPERIMENT = Experiment(
    number=23,
    name="budget",
    claim="A regression that learns beside a quarter of the judge's verdicts ranks the outputs that were not judged.",
    falsified_if="rank correlation is below 0.4, or pairs of one request are ranked right in at most 0.55",
    control="the same judge asked by other requests",
    measure=measure,
    holds=holds,
    caveat="The regression sees outputs without their prompts: it does not know what is asked for. No policy learns.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
