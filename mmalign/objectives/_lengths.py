"""How long outputs are, and what a log-prob is divided by so that length does not decide.

Only tokens have lengths: an estimate drawn with noise (`probe`) is one number per output, however many draws made it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.protocols import Mean
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout

Per = Literal["output", "token", "batch_token"]


def lengths(rollout: Rollout, exact: bool) -> Float[Tensor, " B"]:
    """Tokens of each output; 1 where the policy's density is an estimate (not `exact`) or has no steps."""
    if exact and rollout.mask is not None:
        return rollout.mask.sum(1).clamp(min=1).float()
    return torch.ones(len(rollout), device=rollout.group.device)


def divisors(
    rollout: Rollout, exact: bool, mask: Bool[Tensor, " B"], per: Per, over_ranks: Mean
) -> Float[Tensor, " B"]:
    """What each output's log-prob is divided by: 1, its own length, or the mean length of all that count.

    "batch_token" makes the mean over outputs the mean over all their tokens, on every process together.
    """
    own = lengths(rollout, exact)
    if per == "token":
        return own
    if per == "output":
        return torch.ones_like(own)
    total, count = over_ranks(torch.stack([own.where(mask, 0.0).sum(), mask.float().sum()]))
    return torch.where(count > 0, total / count.clamp(min=1e-12), 1.0).expand_as(own).clone()


__all__ = ["Per", "divisors", "lengths"]
