"""Contrastive losses: what a row's positives score against its other candidates.

N rows, M candidates, D features; s are similarities, τ the temperature, P the positives of a row, C its candidates.

| loss | formula | source |
|---|---|---|
| softmax | -1/|P| Σ_{p ∈ P} log( e^{s_p/τ} / Σ_{k ∈ C} e^{s_k/τ} ) | InfoNCE, van den Oord et al. 2018 (1807.03748), eq. 4; with several positives Khosla et al. 2020 (2004.11362), eq. 2 |
| sigmoid | Σ_{p ∈ P} -log σ(s_p/τ) + Σ_{k ∈ C∖P} -log σ(-s_k/τ) | yes or no for each candidate: a reranker's SFT (2510.14824) |
| triplet | mean over pairs of max(0, ‖a - p‖² - ‖a - n‖² + m) | Schroff et al. 2015 (1503.03832), eq. 3 |

Both first have the gradient weight × ∇s / τ: softmax weighs a candidate by p_k - [k ∈ P]/|P|, which ends once the row's
positives have the mass; sigmoid by σ(s_k/τ) - [k ∈ P], each for itself. Under softmax the negatives share the weight
Σ_p by softmax(s/τ): a lower τ puts more of it on the hardest (Wang & Liu 2020, 2012.09740, eq. 4).
"""  # noqa: E501

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor

Weighting = Literal["softmax", "sigmoid"]

_LEAST = 1e-12  # of a norm: features that are 0 have similarity 0


def cosine(
    rows: Float[Tensor, "N D"], candidates: Float[Tensor, "M D"], gate: Float[Tensor, "N D"] | None = None
) -> Float[Tensor, "N M"]:
    """Compute cosines in [-1, 1]; with a `gate` in [0, 1] those of gate ⊙ features, each row's gate on both sides."""
    if gate is None:
        return torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(candidates, dim=1).T
    squared = gate.square()
    inner = (squared * rows) @ candidates.T
    own = (squared * rows.square()).sum(1).clamp(min=_LEAST).sqrt()
    other = (squared @ candidates.square().T).clamp(min=_LEAST).sqrt()
    return inner / own[:, None] / other


def contrastive(
    similarity: Float[Tensor, "N M"],
    positive: Bool[Tensor, "N M"],
    candidate: Bool[Tensor, "N M"],
    temperature: float,
    weighting: Weighting = "softmax",
) -> Float[Tensor, " N"]:
    """The loss of every row, see the table; 0 for one without a positive. Positives are candidates."""
    scaled, many = similarity / temperature, positive.sum(1)
    if weighting == "sigmoid":
        each = -torch.nn.functional.logsigmoid(torch.where(positive, scaled, -scaled))
        return each.where(candidate, 0.0).sum(1).where(many > 0, 0.0)
    total = scaled.masked_fill(~candidate, float("-inf")).logsumexp(1, keepdim=True)
    missed = (total - scaled).where(positive, 0.0).sum(1)
    return (missed / many.clamp(min=1)).where(many > 0, 0.0)


def triplet(
    anchor: Float[Tensor, "N D"],
    positive: Float[Tensor, "N D"],
    negatives: Float[Tensor, "N K D"],
    there: Bool[Tensor, "N K"],
    margin: float,
) -> Float[Tensor, " N"]:
    """The triplet loss of every row over its negatives that are `there`, with anchor and positive in both roles.

    Who says that two of three are alike says it of both (SIRL, Bobu et al. 2023, 2301.00810, sec. III: reconstruction).
    """
    near = (anchor - positive).square().sum(1, keepdim=True)
    far = torch.stack([(one[:, None] - negatives).square().sum(2) for one in (anchor, positive)])
    each = (near - far + margin).clamp(min=0).mean(0).where(there, 0.0)
    return each.sum(1) / there.sum(1).clamp(min=1)


def hardest_share(
    similarity: Float[Tensor, "N M"], negative: Bool[Tensor, "N M"], temperature: float
) -> Float[Tensor, " N"]:
    """The share in [0, 1] of the weight of all negatives that is on the hardest, max softmax(s/τ); 0 without any."""
    scaled = (similarity / temperature).masked_fill(~negative, float("-inf"))
    return (scaled - scaled.logsumexp(1, keepdim=True)).exp().amax(1).where(negative.any(1), 0.0)


def ranks_first(
    similarity: Float[Tensor, "N M"], positive: Bool[Tensor, "N M"], candidate: Bool[Tensor, "N M"]
) -> Float[Tensor, " N"]:
    """1 where a positive is above every other candidate, else 0, a tie with another is 0."""
    best = similarity.masked_fill(~positive, float("-inf")).amax(1)
    other = similarity.masked_fill(~candidate | positive, float("-inf")).amax(1)
    return (best > other).to(similarity)


__all__ = ["Weighting", "contrastive", "cosine", "hardest_share", "ranks_first", "triplet"]
