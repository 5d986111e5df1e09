"""Preference losses of one comparison, as pure functions of scaled log-ratios.

z = β (ρ_chosen - ρ_rejected), ρ = log π - log π_ref, label = P(chosen is the better one). Each returns a loss per row
that falls as z grows towards its optimum; expectations over the label are taken exactly (`ipo`
up to a constant).

| name | loss at label 1 | optimum | source |
|---|---|---|---|
| sigmoid | -log σ(z) | z = logit(label) | DPO, Rafailov et al. 2023, eq. 7; smoothing: cDPO, Mitchell 2023 |
| hinge | max(0, 1 - z) | z = ±1 | SLiC, Zhao et al. 2023 |
| ipo | (z - 1/2)² | z = label - 1/2 | IPO, Azar et al. 2023, times β² to match the scale of the others |
| kto | ½[1 - σ(z_c - q)] + ½[1 - σ(q - z_r)] | none | KTO, Ethayarajh et al. 2024 (both weights 1) |

A *squared* loss of a noisy estimate is biased: E(z-t)² = (E z-t)² + Var z, and Var z shrinks with the update itself, so
the optimum does too. `ipo` therefore multiplies two independent estimates, (z₁ - t)(z₂ - t): value and gradient are
unbiased. Pass the same tensor twice where z is exact (tokens).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LossType = Literal["sigmoid", "ipo", "hinge", "kto"]
Row = Float[Tensor, " B"]


def sigmoid(z: Row, label: Row) -> Row:
    """-label log σ(z) - (1 - label) log σ(-z)."""
    return -label * F.logsigmoid(z) - (1 - label) * F.logsigmoid(-z)


def hinge(z: Row, label: Row) -> Row:
    """label max(0, 1 - z) + (1 - label) max(0, 1 + z)."""
    return label * F.relu(1 - z) + (1 - label) * F.relu(1 + z)


def ipo(one: Row, other: Row, label: Row) -> Row:
    """(z₁ - t)(z₂ - t) with t = label - 1/2, from two independent estimates of z (or the exact z twice)."""
    target = label - 0.5
    return (one - target) * (other - target)


def kto(chosen: Row, rejected: Row, point: Row, label: Row) -> Row:
    """Both sides judged on their own against the reference point q: `chosen` and `rejected` are β ρ, `point` is β q."""
    up, down = (chosen - point).sigmoid(), (rejected - point).sigmoid()
    agree, disagree = (1 - up) + down, up + (1 - down)
    return (label * agree + (1 - label) * disagree) / 2


def smoothed(label: Row, smoothing: float) -> Row:
    """The label if a share `smoothing` of the comparisons is flipped."""
    return label * (1 - smoothing) + (1 - label) * smoothing


def halves(terms: Float[Tensor, "B T"]) -> tuple[Row, Row]:
    """Two independent estimates of the sum of T (even) independent terms: from the even and from the odd ones."""
    return 2 * terms[:, ::2].sum(1), 2 * terms[:, 1::2].sum(1)


__all__ = ["LossType", "halves", "hinge", "ipo", "kto", "sigmoid", "smoothed"]
