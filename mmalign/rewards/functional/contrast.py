"""Nearer to its own text than to others."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor

Aggregate = Literal["mean", "max", "logsumexp"]


def contrastive_similarity(
    own: Float[Tensor, " B"],
    others: Float[Tensor, "B N"],
    present: Bool[Tensor, "B N"],
    aggregate: Aggregate = "mean",
    temperature: float = 0.1,
) -> Float[Tensor, " B"]:
    """own - aggregate over the `present` others, in [-2, 2] for cosines; NaN where a row has no other.

    The contrastive term of "Bridging the Semantic Gap: Contrastive Rewards for Multilingual Text-to-SQL", of which the
    abstract alone was in reach; a reconstruction: cos(e(ŷ), e(y)) - agg_n cos(e(ŷ), e(n)).

    Args:
        own: similarity of each output to its own reference.
        others: similarity to negatives.
        present: which entries of `others` are negatives of the row.
        aggregate: `mean`, `max`, or `logsumexp`, τ log mean exp(s/τ), between the two.
        temperature: τ.
    """
    count = present.sum(1)
    if aggregate == "mean":
        level = (others * present).sum(1) / count
    elif aggregate == "max":
        level = others.masked_fill(~present, -math.inf).amax(1) if others.shape[1] else torch.full_like(own, math.nan)
    else:
        scaled = (others / temperature).masked_fill(~present, -math.inf)
        level = temperature * (scaled.logsumexp(1) - count.to(own.dtype).log())
    return torch.where(count > 0, own - level, torch.full_like(own, math.nan))


def choice_log_probability(
    own: Float[Tensor, " B"], others: Float[Tensor, "B N"], present: Bool[Tensor, "B N"], scale: float
) -> Float[Tensor, " B"]:
    """log softmax(scale · cosines) of each row's own text among it and its `present` others, at most 0.

    CLIP's training loss (Radford et al. 2021) with candidates of the row's own; 0 where a row has no other.

    Args:
        own: cosine to the own text.
        others: cosines to the candidates.
        present: which of them are candidates of the row.
        scale: the model's exp(logit_scale).
    """
    logits = scale * torch.cat([own[:, None], others.masked_fill(~present, -math.inf)], dim=1)
    return logits.log_softmax(1)[:, 0]


def embedding_contrast(
    features: Float[Tensor, "B D"], group: Int[Tensor, " B"], question: Int[Tensor, " B"]
) -> dict[str, Float[Tensor, " B"]]:
    """The four cosines of GRACE (2510.04506), each in [-1, 1], of every output; 0 where it has nothing to compare.

    From the authors' public reward: for an output m of group g, `positive` is the mean cosine with outputs to other
    wordings of its question (NaN where there are none), `negative` that with outputs to other questions, `own` that
    with the others of its group, and `across` the mean over groups of other questions of the largest cosine with one
    of theirs. There the query and its negatives are embedded once for a whole group, so that two of the terms are
    constants of it and train nothing; here every output is compared.

    Args:
        features: of the outputs.
        group: outputs to one wording share a number.
        question: wordings of one question share a number.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    cosine = unit @ unit.T
    same, alike = group[:, None] == group[None], question[:, None] == question[None]
    itself = torch.eye(len(group), dtype=torch.bool, device=features.device)
    foreign = [(group == number)[None] & ~alike for number in group.unique()]
    largest = [cosine.masked_fill(~one, -math.inf).amax(1) for one in foreign]
    known = torch.stack([one.any(1) for one in foreign])
    across = torch.stack(largest).where(known, 0.0).sum(0) / known.sum(0).clamp(min=1)
    partners = alike & ~same
    return {
        "positive": _mean_over(cosine, partners).where(partners.any(1), math.nan),
        "negative": _mean_over(cosine, ~alike),
        "own": _mean_over(cosine, same & ~itself),
        "across": across,
    }


def _mean_over(values: Float[Tensor, "B B"], chosen: Bool[Tensor, "B B"]) -> Float[Tensor, " B"]:
    return values.where(chosen, 0.0).sum(1) / chosen.sum(1).clamp(min=1)
