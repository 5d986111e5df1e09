"""Rewards of length: a window, the cosine of a right or wrong answer, overlong punishment, and a group's own measure.

| function | formula | source |
|---|---|---|
| length_window | 1 in [low, high]; linear to 0 over `rise` below, `fall` above | GCPO: min(L/Lmax, 1); R³: words/100 |
| cosine_length | v_end + ½ (v_start - v_end)(1 + cos(π min(L/Lmax, 1))) | Yeo et al. 2025 (2502.03373), clamped |
| soft_overlong | 0; (Lmax - C - L)/C past Lmax - C; -1 past Lmax | DAPO (2503.14476), eq. 13 |
| group_length | -P × shortfall of wrong answers against the group's right ones | HARMO (2510.05283), a reconstruction |

Lengths are in any one unit.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor


def length_window(
    length: Float[Tensor, " B"], low: float, high: float = math.inf, rise: float | None = None, fall: float = 0.0
) -> Float[Tensor, " B"]:
    """1 where low ≤ L ≤ high, falling linearly to 0 at low - rise and at high + fall; in [0, 1].

    Args:
        length: of each answer.
        low: the shortest that is long enough.
        high: the longest that is short enough.
        rise: how far below `low` the value reaches 0; `low` itself by default (nothing scores 0), 0 for a step.
        fall: the same above `high`.
    """
    rise = low if rise is None else rise
    below = _ramp(low - length, rise)
    return torch.minimum(below, _ramp(length - high, fall) if math.isfinite(high) else torch.ones_like(length))


def cosine_length(
    length: Float[Tensor, " B"],
    correct: Bool[Tensor, " B"],
    limit: float,
    right: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-1.0, -0.5),
) -> Float[Tensor, " B"]:
    """From `right[0]` at length 0 to `right[1]` at `limit` and beyond, by half a cosine; `wrong` the same.

    By default a right answer is worth more when short, and a wrong one costs less when long: it was at least tried.
    """
    share = (1 + torch.cos(math.pi * (length / limit).clamp(max=1))) / 2
    first, last = (torch.where(correct, r, w) for r, w in zip(right, wrong, strict=True))
    return last + (first - last) * share


def soft_overlong(length: Float[Tensor, " B"], limit: float, buffer: float) -> Float[Tensor, " B"]:
    """0 up to limit - buffer, then linearly to -1 at `limit`, and -1 beyond; in [-1, 0]."""
    return -1 + _ramp(length - (limit - buffer), buffer)


def group_length(
    length: Float[Tensor, " B"],
    correct: Bool[Tensor, " B"],
    group: Int[Tensor, " B"],
    penalty: float = 1.0,
    tolerance: float = 0.5,
    form: Literal["beyond", "within"] = "beyond",
) -> Float[Tensor, " B"]:
    """Minus `penalty` × how far a wrong answer falls short of its group's right ones; in [-penalty, 0].

    With L* the mean length of the right answers and s = (L* - L)/L* the shortfall, a wrong answer pays

        beyond:  penalty × clip((s - tolerance)/(1 - tolerance), 0, 1)     nothing is owed up to the tolerance
        within:  penalty × clip(s/tolerance, 0, 1)                         all is owed from the tolerance on

    Right answers pay nothing, and a group without a right answer has no measure: exactly 0. Both forms are
    reconstructions; the paper's own was out of reach.
    """
    slot = torch.unique(group, return_inverse=True)[1]
    right = correct.to(length.dtype)
    zeros = length.new_zeros(int(slot.max()) + 1 if len(slot) else 0)
    count, total = zeros.index_add(0, slot, right), zeros.index_add(0, slot, right * length)
    measure = (total / count.clamp_min(1))[slot]
    short = (measure - length) / measure.clamp_min(torch.finfo(length.dtype).tiny)
    owed = (short - tolerance) / (1 - tolerance) if form == "beyond" else short / tolerance
    due = ~correct & (measure > 0)
    return torch.where(due, -penalty * owed.clamp(0, 1), length.new_zeros(()))


def _ramp(over: Float[Tensor, " B"], width: float) -> Float[Tensor, " B"]:
    """1 where over ≤ 0, then linearly to 0 at `width`."""
    return (1 - over / width).clamp(0, 1) if width > 0 else (over <= 0).to(over.dtype)
