"""Statistics within groups of rows that answer one prompt."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor


def group_normalize(
    value: Float[Tensor, " B"],
    group: Int[Tensor, " B"],
    valid: Bool[Tensor, " B"] | None = None,
    unbiased: bool = True,
) -> Float[Tensor, " B"]:
    """(value - group mean) / group standard deviation over valid rows; NaN where a row is not valid.

    Where all valid rows of a group are equal the result is exactly 0, not rounding noise divided by a small constant.
    (Group-relative advantage of Shao et al. 2024, eq. after 3; per component before summing: GDPO.)
    """
    valid = ~value.isnan() if valid is None else valid & ~value.isnan()
    slot = torch.unique(group, return_inverse=True)[1].to(value.device)
    weight, filled = valid.to(value.dtype), value.where(valid, value.new_zeros(()))
    count = _sums(weight, slot)
    centred = (filled - (_sums(filled, slot) / count.clamp_min(1))[slot]) * weight
    square = _sums(centred.square(), slot) / (count - int(unbiased)).clamp_min(1)
    # A spread that float32 cannot tell from rounding of the values themselves is no spread.
    size = _sums(filled.abs(), slot) / count.clamp_min(1)
    flat = (square.detach() <= (4 * torch.finfo(value.dtype).eps * size).square())[slot]
    std = square.where(square > 0, torch.ones_like(square)).sqrt()[slot]
    z = torch.where(flat, centred * 0, centred / std)
    return z.where(valid, z.new_full((), float("nan")))


def group_rank(
    value: Float[Tensor, " B"], group: Int[Tensor, " B"], valid: Bool[Tensor, " B"] | None = None
) -> Float[Tensor, " B"]:
    """Rank of each row among the valid rows of its group, 0 (worst) to 1 (best); NaN where not valid.

    Ties share their mean rank; a lone row ranks 0.5.
    """
    valid = ~value.isnan() if valid is None else valid & ~value.isnan()
    rivals = (group[:, None] == group[None]).to(value.device) & valid[:, None] & valid[None]
    above = (rivals & (value[:, None] > value[None])).sum(1)
    ties = (rivals & (value[:, None] == value[None])).sum(1) - 1
    others = rivals.sum(1) - 1
    rank = (above + ties / 2) / others.clamp_min(1)
    rank = rank.where(others > 0, torch.full_like(rank, 0.5)).to(value.dtype)
    return rank.where(valid, rank.new_full((), float("nan")))


def _sums(value: Float[Tensor, " B"], slot: Int[Tensor, " B"]) -> Float[Tensor, " G"]:
    """Sum of `value` per group."""
    return value.new_zeros(int(slot.max()) + 1 if len(slot) else 0).index_add(0, slot, value)
