"""Does a head of two layers, or an ensemble, judge near misses better than one linear layer (BaseReward)?

    python -m pipelines.papers.heads

Reward models on the rewriter are fitted to the same 3,000 comparisons in 60 steps: with a linear head, with two layers,
as BaseReward has, and three linear ones to resamples, whose mean judges. Measured on held-out best of four.
"""

from __future__ import annotations

import torch

from mmalign.core.rng import stream
from mmalign.core.types import Rollout, Scores
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import Judging, accuracy, fitted

STEPS, MEMBERS = 60, 3


class Mean:
    """The mean of several models' scores, each with mean 0 and deviation 1 over the texts of a call."""

    def __init__(self, models: list[Scorer]) -> None:
        self.judges = [Judging(model) for model in models]

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts."""
        each = torch.stack([judge(rollout).value for judge in self.judges])
        return Scores.of(((each - each.mean(1, keepdim=True)) / each.std(1, keepdim=True)).mean(0))


def measure(seed: int) -> Arms:
    """Best of four and pair accuracy by head."""
    pairs, held = world.preferences(), world.preferences("comparisons_heldout")
    rng = stream(seed, "resamples")
    drawn = [torch.randint(len(pairs), (len(pairs),), generator=rng).tolist() for _ in range(MEMBERS)]
    linear, deep = fitted(pairs, STEPS, seed), fitted(pairs, STEPS, seed, {"kind": "mlp2"})
    members = [fitted([pairs[i] for i in rows], STEPS, 10 * seed + n) for n, rows in enumerate(drawn)]
    arms = {
        arm: {"best_of_4": world.best_of_4(Judging(model)), "accuracy": accuracy(model, held)}
        for arm, model in {"linear": linear, "two layers": deep, "one of the resamples": members[0]}.items()
    }
    return {**arms, "mean of three": {"best_of_4": world.best_of_4(Mean(members))}}


def holds(means: Means) -> bool:
    """Best of four rises with the second layer, and with the ensemble over one of its members."""
    best = {arm: one["best_of_4"] for arm, one in means.items()}
    return best["two layers"] > best["linear"] and best["mean of three"] > best["one of the resamples"]


EXPERIMENT = Experiment(
    number=37,
    name="heads",
    claim="A head of two layers judges near misses better than a linear one, and an ensemble better than its members.",
    falsified_if="best of four is not above the linear head's, or the ensemble's not above that of its first member",
    control="a member of the ensemble alone, fitted to a resample",
    measure=measure,
    holds=holds,
    caveat="One width, one learning rate and 60 steps for both heads; differences within the intervals show nothing.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
