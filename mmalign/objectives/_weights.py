"""Weights as data: how much each row or step counts, fixed for a whole minibatch before it is split.

Losses are weighted sums, so any split of rows, steps or processes gives the same gradient. Every count is divided by
its mean over ranks: rank r then carries n_r / mean(n), and the average that data-parallel training takes of the
gradients is the gradient of the mean over all ranks. `mean` is called once by every rank, even one without entries.

`log_prob_divisors` says what a log-prob is divided by so that length does not decide. Only tokens have lengths: an
estimate drawn with noise (`probe`) is one number per output, however many draws made it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.experience import Experience
from mmalign.core.protocols import Mean
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout

Per = Literal["output", "token", "batch_token"]


def per_row(mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
    """Weigh every valid row alike; the weights of all processes together sum to their number."""
    return mask.float() / _positive(mean(mask.float().sum()))


def per_sequence(mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
    """Weigh every sequence alike, whatever its length (GRPO, Shao et al. 2024, eq. 3: 1/|o_i|)."""
    share = mask.float() / mask.float().sum(1, keepdim=True).clamp(min=1)
    return share / _positive(mean(mask.any(1).float().sum()))


def per_step(mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
    """Weigh every step alike, so long sequences count more (DAPO, Yu et al. 2025)."""
    return mask.float() / _positive(mean(mask.float().sum()))


def constant(mask: Bool[Tensor, "B T"], mean: Mean, horizon: int = 1) -> Float[Tensor, "B T"]:
    """Weigh every step by 1/`horizon` of a sequence, whatever its length (Dr. GRPO, Liu et al. 2025)."""
    return mask.float() / horizon / _positive(mean(mask.any(1).float().sum()))


class RowsAlike:
    """An objective whose valid rows (outputs, pairs, requests) all weigh the same."""

    def weigh(self, mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
        """Every valid row alike; the weights sum to 1 over the processes' mean."""
        return per_row(mask, mean)


def weight_of(chunk: Experience) -> Tensor:
    """Return the weight of every entry of the chunk, of the shape of its mask. Raises ValueError where it has none."""
    if chunk.weight is None:
        raise ValueError("the chunk has no weight; set it with `weigh` on the whole minibatch before splitting.")
    return chunk.weight


def weighted_sum(chunk: Experience, value: Tensor) -> Float[Tensor, ""]:
    """Σ weight × value over the entries of the chunk that count. Raises ValueError where it has no weight."""
    return (weight_of(chunk) * value.where(chunk.mask, 0.0)).sum()


def _positive(count: Tensor) -> Tensor:
    # A mean over ranks may lie in (0, 1); only an exact 0 (nothing valid anywhere) needs replacing.
    return count.where(count > 0, count.new_ones(()))


def token_counts(rollout: Rollout, exact: bool) -> Float[Tensor, " B"]:
    """Tokens of each output; 1 where the policy's density is an estimate (not `exact`) or has no steps."""
    if exact and rollout.mask is not None:
        return rollout.mask.sum(1).clamp(min=1).float()
    return torch.ones(len(rollout), device=rollout.group.device)


def log_prob_divisors(
    rollout: Rollout, exact: bool, mask: Bool[Tensor, " B"], per: Per, over_ranks: Mean
) -> Float[Tensor, " B"]:
    """Return what each output's log-prob is divided by: 1, its own length, or the mean length of all that count.

    "batch_token" makes the mean over outputs the mean over all their tokens, on every process together.
    """
    own = token_counts(rollout, exact)
    if per == "token":
        return own
    if per == "output":
        return torch.ones_like(own)
    total, count = over_ranks(torch.stack([own.where(mask, 0.0).sum(), mask.float().sum()]))
    return torch.where(count > 0, total / count.clamp(min=1e-12), 1.0).expand_as(own).clone()


__all__ = [
    "Per",
    "RowsAlike",
    "constant",
    "log_prob_divisors",
    "per_row",
    "per_sequence",
    "per_step",
    "token_counts",
    "weight_of",
    "weighted_sum",
]
