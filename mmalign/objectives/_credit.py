"""From scores to what is credited: a KL inside the reward, a greedy reference, which rows and groups count.

KL in the reward, with k1 = log π_old - log π_ref of each sampled step (unbiased, and no gradient flows through it):

| kind | credited | source |
|---|---|---|
| sequence | r - β Σ k1 | RLOO (Ahmadian et al. 2024, 2402.14740) |
| to_go | r - β Σ of k1 from this step on | REINFORCE++ (Hu et al. 2025, 2501.03262) |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.objectives._scoring import scored

RewardKL = Literal["sequence", "to_go"]
Truncated = Literal["keep", "mask", "exclude"]


def credited(scores: Scores, steps: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, " B #T"], Bool[Tensor, " B #T"]]:
    """Values of rows (B, 1), or of single steps where the reward credits them, and which of them count."""
    if scores.per_step is not None:
        return scores.per_step, scores.valid[:, None] & steps
    return scores.value[:, None], scores.valid[:, None]


def penalised(
    value: Float[Tensor, " B #T"],
    valid: Bool[Tensor, " B #T"],
    moved: Float[Tensor, "B T"],
    steps: Bool[Tensor, "B T"],
    kind: RewardKL,
) -> tuple[Float[Tensor, " B #U"], Bool[Tensor, " B #U"]]:
    """Values minus the cost `moved` (β k1 of each step); with "to_go" every step has a value of its own."""
    cost = moved.where(steps, 0.0)
    if kind == "sequence":
        return value - cost.sum(1, keepdim=True), valid
    ahead = cost.flip(1).cumsum(1).flip(1)
    return value - ahead, valid & steps


def greedy_scores(
    policy: Any, reward: Any, batch: Sequence[Prompt], size: int, rng: torch.Generator
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """What the policy's deployed (greedy) answer to each prompt scores, for its `size` rows, and whether it has one.

    Self-critical training: Rennie et al. 2017, 1612.00563. Rewards that learn from what they score learn nothing here.
    """
    with reward.frozen() if hasattr(reward, "frozen") else nullcontext():
        scores = scored(reward, policy.generate(list(batch), rng))
    return scores.value.repeat_interleave(size), scores.valid.repeat_interleave(size)


def whole(rollout: Rollout, device: torch.device) -> Bool[Tensor, " B"]:
    """Rows that ended by themselves."""
    if rollout.truncated is None:
        return torch.ones(len(rollout), dtype=torch.bool, device=device)
    return ~rollout.truncated.to(device)


def rows_of_live_groups(trained: Bool[Tensor, " B"], size: int, count: int) -> Int[Tensor, " K"]:
    """Row numbers of `count` groups: the first with a row to train on, in order, then, if too few, the first others."""
    groups = trained.reshape(-1, size).any(1)
    chosen = torch.argsort(~groups, stable=True)[:count].sort().values
    return (chosen[:, None] * size + torch.arange(size, device=trained.device)).flatten()


__all__ = ["RewardKL", "Truncated", "credited", "greedy_scores", "penalised", "rows_of_live_groups", "whole"]
