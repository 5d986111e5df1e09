"""Advantages: from scores to how much better a row (or step) is than what it is compared with.

    A = (r - b) / (s + floor),   b the group's mean or the mean of the others,   s the group's or everybody's spread

Sources: GRPO (Shao et al. 2024, eq. 3), RLOO (Ahmadian et al. 2024) for `leave_one_out`, Dr. GRPO (Liu et al. 2025) for
`std="none"`, Flow-GRPO (Liu et al. 2025) for `std="global"`, the floor 1e-4 and the limit 5. The spread is the
population one (divides by n), as in Flow-GRPO. Statistics run in float64: rewards near a large mean keep their digits.

KL inside the reward (`subtract_kl`), with k1 = log π_old - log π_ref of each sampled step (unbiased, and no gradient
flows through it):

| kind | r becomes | source |
|---|---|---|
| sequence | r - β Σ k1 | RLOO (Ahmadian et al. 2024, 2402.14740) |
| to_go | r - β Σ of k1 from this step on | REINFORCE++ (Hu et al. 2025, 2501.03262) |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.protocols import Mean, Policy, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.objectives._rollouts import Scorer, score_rollout

Std = Literal["group", "global", "none"]
Baseline = Literal["mean", "leave_one_out", "greedy", "none"]
RewardKL = Literal["sequence", "to_go"]
Truncated = Literal["keep", "mask", "exclude"]

SAME = 3e-7  # a spread below this share of the values is a few float32 roundings, not a difference


def group_relative(
    value: Float[Tensor, " B #T"],
    group: Int[Tensor, " B"],
    valid: Bool[Tensor, " B #T"],
    *,
    std: Std = "group",
    baseline: Baseline = "mean",
    std_floor: float = 1e-4,
    limit: float | None = 5.0,
    over_ranks: Mean = one_process,
) -> tuple[Float[Tensor, " B #T"], Bool[Tensor, " B"]]:
    """Advantages against the group (mean, or leave_one_out), and the rows (B,) of groups whose rewards differ.

    With T = 1 the values are rewards of whole rows; with T > 1 they are credit of single steps, and the statistics run
    over all valid steps of the group. Rewards of a group differ when at least two of its rows are valid and their
    values are further apart than rounding. Values at invalid entries are never read (NaN is fine), and their advantage
    is 0. "global" covers the rows of every process: `over_ranks` averages its sums, and each process calls it equally
    often.
    """
    x, one = value.double().masked_fill(~valid, 0.0), valid.double()
    size = int(group.max()) + 1 if len(group) else 0
    count, total = _by_group(one.sum(1), group, size), _by_group(x.sum(1), group, size)
    mean = total / count.clamp(min=1)
    deviation = _root_mean(_by_group(((x - mean[group, None]) * one).square().sum(1), group, size), count)
    height = _root_mean(_by_group(x.square().sum(1), group, size), count)
    rows = _by_group(valid.any(1).double(), group, size)
    differ = ((rows >= 2) & (deviation > SAME * height))[group]
    reference = mean[group]
    if baseline == "leave_one_out":
        reference = (total[group] - x.sum(1)) / (count[group] - one.sum(1)).clamp(min=1)
    advantage = (x - reference[:, None]) / _divisor(std, deviation[group], x, one, over_ranks, std_floor)
    advantage = advantage if limit is None else advantage.clamp(-limit, limit)
    return advantage.masked_fill(~(valid & differ[:, None]), 0.0).to(value.dtype), differ


def subtract_baseline(
    value: Float[Tensor, " B #T"], reference: Float[Tensor, " B"] | float, valid: Bool[Tensor, " B #T"]
) -> Float[Tensor, " B #T"]:
    """Values minus a reference that is no statistic of theirs (the greedy answer's, or 0); 0 where not `valid`."""
    level = reference[:, None] if isinstance(reference, Tensor) else reference
    return (value - level).masked_fill(~valid, 0.0)


def whiten(
    advantage: Float[Tensor, " B #T"],
    valid: Bool[Tensor, " B #T"],
    floor: float = 1e-4,
    over_ranks: Mean = one_process,
    times: Bool[Tensor, "B U"] | None = None,
) -> Float[Tensor, " B #T"]:
    """Advantages minus the mean of all valid entries of every process, over their spread (population) + `floor`.

    0 where not `valid`. REINFORCE++ (Hu et al. 2025, 2501.03262). With `times`, the steps of each row, a row's one
    value counts once a step, as in its authors' code (OpenRLHF). Spreads that are rounding alone give 0.
    """
    x, one = advantage.double().masked_fill(~valid, 0.0), valid.double()
    if times is not None and x.shape[1] == 1:
        one = one * times.double().sum(1, keepdim=True)
    total, squares, count = over_ranks(torch.stack([(x * one).sum(), (x.square() * one).sum(), one.sum()]))
    some = count.where(count > 0, 1.0)
    mean = total / some
    deviation = (over_ranks(((x - mean).square() * one).sum()) / some).sqrt()
    scale = torch.where(deviation > SAME * (squares / some).sqrt(), 1 / (deviation + floor), 0.0)
    return ((x - mean) * scale).masked_fill(~valid, 0.0).to(advantage.dtype)


def _by_group(entry: Float[Tensor, " B"], group: Int[Tensor, " B"], size: int) -> Float[Tensor, " G"]:
    return entry.new_zeros(size).index_add(0, group, entry)


def _root_mean(squares: Tensor, count: Tensor) -> Tensor:
    return (squares / count.clamp(min=1)).sqrt()


def _divisor(std: Std, deviation: Tensor, x: Tensor, one: Tensor, over_ranks: Mean, floor: float) -> Tensor:
    """The divisor of the advantage, (B, 1) or a scalar."""
    if std == "none":
        return torch.ones_like(deviation)[:, None]
    if std == "group":
        return deviation[:, None] + floor
    # Sums and counts arrive as means over ranks: their common factor leaves every ratio.
    total, count = over_ranks(torch.stack([x.sum(), one.sum()]))
    some = count.where(count > 0, 1.0)
    mean = total / some
    return (over_ranks(((x - mean) * one).square().sum()) / some).sqrt() + floor


def values_and_mask(scores: Scores, steps: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, " B #T"], Bool[Tensor, " B #T"]]:
    """Values of rows (B, 1), or of single steps where the reward credits them, and which of them count."""
    if scores.per_step is not None:
        return scores.per_step, scores.valid[:, None] & steps
    return scores.value[:, None], scores.valid[:, None]


def subtract_kl(
    value: Float[Tensor, " B #T"],
    valid: Bool[Tensor, " B #T"],
    kl_cost: Float[Tensor, "B T"],
    steps: Bool[Tensor, "B T"],
    kind: RewardKL,
) -> tuple[Float[Tensor, " B #U"], Bool[Tensor, " B #U"]]:
    """Values minus the cost (β k1 of each step); with "to_go" every step has a value of its own."""
    cost = kl_cost.where(steps, 0.0)
    if kind == "sequence":
        return value - cost.sum(1, keepdim=True), valid
    ahead = cost.flip(1).cumsum(1).flip(1)
    return value - ahead, valid & steps


@runtime_checkable
class Freezable(Protocol):
    """A reward that may learn from what it scores, and not while it is frozen: a mix."""

    def frozen(self) -> AbstractContextManager[None]:
        """Inside it, nothing is learned."""
        ...


def greedy_scores(
    policy: Policy, reward: Scorer, batch: Sequence[Prompt], size: int, rng: torch.Generator
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """What the policy's deployed (greedy) answer to each prompt scores, for its `size` rows, and whether it has one.

    Self-critical training: Rennie et al. 2017, 1612.00563. Rewards that learn from what they score learn nothing here.
    """
    with reward.frozen() if isinstance(reward, Freezable) else nullcontext():
        scores = score_rollout(reward, policy.generate(list(batch), rng))
    return scores.value.repeat_interleave(size), scores.valid.repeat_interleave(size)


def not_truncated(rollout: Rollout, device: torch.device) -> Bool[Tensor, " B"]:
    """(B,) which rows ended by themselves, and were not cut off at the limit of steps."""
    if rollout.truncated is None:
        return torch.ones(len(rollout), dtype=torch.bool, device=device)
    return ~rollout.truncated.to(device)


def rows_of_groups_that_train(trained: Bool[Tensor, " B"], size: int, count: int) -> Int[Tensor, " K"]:
    """Row numbers of `count` groups: the first with a row to train on, in order, then, if too few, the first others."""
    groups = trained.reshape(-1, size).any(1)
    chosen = torch.argsort(~groups, stable=True)[:count].sort().values
    return (chosen[:, None] * size + torch.arange(size, device=trained.device)).flatten()


__all__ = [
    "Baseline",
    "RewardKL",
    "Std",
    "Truncated",
    "greedy_scores",
    "group_relative",
    "not_truncated",
    "rows_of_groups_that_train",
    "subtract_baseline",
    "subtract_kl",
    "values_and_mask",
    "whiten",
]
