"""Scored outputs as pairs: who is compared with whom."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.experience import Pairs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout

Ranking = tuple[Int[Tensor, " P"], Int[Tensor, " P"], Bool[Tensor, " P"]]  # better rows, worse rows, do they differ?


def best_and_worst(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"], size: int) -> Ranking:
    """Row numbers of the best and the worst valid output of each group of `size` rows, and whether they differ."""
    table, fine = value.reshape(-1, size), valid.reshape(-1, size)
    first = torch.arange(len(table), device=value.device) * size
    best, worst = table.masked_fill(~fine, -torch.inf).argmax(1), table.masked_fill(~fine, torch.inf).argmin(1)
    return _ordered(value, valid, first + best, first + worst)


def all_pairs(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"], size: int) -> Ranking:
    """Every two outputs of each group of `size` rows, better first: size (size - 1) / 2 pairs per group."""
    groups = len(value) // size
    i, j = torch.triu_indices(size, size, 1, device=value.device)
    first = torch.arange(groups, device=value.device).repeat_interleave(len(i)) * size
    left, right = first + i.repeat(groups), first + j.repeat(groups)
    better = value[left].nan_to_num(-torch.inf) >= value[right].nan_to_num(-torch.inf)
    return _ordered(value, valid, torch.where(better, left, right), torch.where(better, right, left))


def neighbours(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"]) -> Ranking:
    """Rows 0 and 1, 2 and 3, …, better first: the instance-wise sets of DRAGON."""
    left = torch.arange(0, len(value), 2, device=value.device)
    better = value[left].nan_to_num(-torch.inf) >= value[left + 1].nan_to_num(-torch.inf)
    return _ordered(value, valid, torch.where(better, left, left + 1), torch.where(better, left + 1, left))


def halves_of_pool(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"]) -> Ranking:
    """The top half of all valid rows and the bottom half, whatever their prompts: k-th best with k-th worst."""
    order = value.masked_fill(~valid, -torch.inf).argsort(descending=True, stable=True)
    place = torch.arange(len(value) // 2, device=value.device)
    last = valid.sum() - 1 - place
    better, worse, fine = _ordered(value, valid, order[place], order[last.clamp(min=0)])
    return better, worse, fine & (place < last)


def pick(rollout: Rollout, better: Tensor, worse: Tensor, mask: Tensor, value: Float[Tensor, " B"]) -> Pairs:
    """Pairs of two sets of rows; skipped ones stay as masked rows, so that every process has as many."""
    gap = (value[better] - value[worse]).where(mask, 0.0)
    return Pairs(chosen=rollout[better], rejected=rollout[worse], mask=mask, gap=gap)


def _ordered(value: Tensor, valid: Tensor, better: Tensor, worse: Tensor) -> Ranking:
    return better, worse, valid[better] & valid[worse] & (value[better] > value[worse])


__all__ = ["Ranking", "all_pairs", "best_and_worst", "halves_of_pool", "neighbours", "pick"]
