"""Is a behaviour right for a prompt? What the outputs of its group say that show it, and those that do not."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor


def group_contrast(
    correct: Float[Tensor, " B"],
    shows: Bool[Tensor, " B"],
    group: Int[Tensor, " B"],
    valid: Bool[Tensor, " B"] | None = None,
    eps: float = 0.0,
) -> Float[Tensor, " B"]:
    """M of each row's group, -1, 0 or 1: sign(Δ) where |Δ| > eps, with Δ = mean with the behaviour - mean without.

    Group Contrastive Policy Optimization (GeometryZero, 2506.07160). 0 too where a group's valid rows all show the
    behaviour, or none does: nothing was compared.

    Args:
        correct: how right each output is.
        shows: whether it shows the behaviour.
        group: the prompt that it belongs to.
        valid: which rows are evidence; those with a number as `correct`.
        eps: a difference up to this is none.
    """
    valid = ~correct.isnan() if valid is None else valid & ~correct.isnan()
    slot = torch.unique(group, return_inverse=True)[1].to(correct.device)
    groups = int(slot.max()) + 1 if len(slot) else 0

    def mean(chosen: Bool[Tensor, " B"]) -> Float[Tensor, " G"]:
        weight = chosen.to(correct.dtype)
        total = correct.new_zeros(groups).index_add(0, slot, correct.where(chosen, correct.new_zeros(())))
        return total / correct.new_zeros(groups).index_add(0, slot, weight)  # 0 / 0: NaN, which compares with nothing

    delta = mean(valid & shows) - mean(valid & ~shows)
    mask = torch.where(delta.abs() > eps, delta.sign(), torch.zeros_like(delta))
    return mask[slot]
