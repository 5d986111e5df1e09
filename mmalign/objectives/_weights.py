"""Weights as data: how much each row or step counts, fixed for a whole minibatch before it is split.

Losses are weighted sums, so any split of rows, steps or processes gives the same gradient. Every count is divided by
its mean over ranks: rank r then carries n_r / mean(n), and the average that data-parallel training takes of the
gradients is the gradient of the mean over all ranks. `mean` is called once by every rank, even one without entries.
"""

from __future__ import annotations

from jaxtyping import Bool, Float

from mmalign.core.protocols import Mean
from mmalign.core.tensor import Tensor


def per_row(mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
    """Every valid row alike."""
    return mask.float() / _positive(mean(mask.float().sum()))


def per_sequence(mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
    """Every sequence alike, whatever its length (GRPO, Shao et al. 2024, eq. 3: 1/|o_i|)."""
    share = mask.float() / mask.float().sum(1, keepdim=True).clamp(min=1)
    return share / _positive(mean(mask.any(1).float().sum()))


def per_step(mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
    """Every step alike, so long sequences count more (DAPO, Yu et al. 2025)."""
    return mask.float() / _positive(mean(mask.float().sum()))


def constant(mask: Bool[Tensor, "B T"], mean: Mean, horizon: int = 1) -> Float[Tensor, "B T"]:
    """Every step weighs 1/`horizon` of a sequence, whatever its length (Dr. GRPO, Liu et al. 2025)."""
    return mask.float() / horizon / _positive(mean(mask.any(1).float().sum()))


def _positive(count: Tensor) -> Tensor:
    # A mean over ranks may lie in (0, 1); only an exact 0 (nothing valid anywhere) needs replacing.
    return count.where(count > 0, count.new_ones(()))


__all__ = ["constant", "per_row", "per_sequence", "per_step"]
