"""Answers that agree with others, where nobody knows which is right."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor


def vote_share(answer: Int[Tensor, " B"], voters: Bool[Tensor, "B B"]) -> Float[Tensor, " B"]:
    """The share of each row's voters that give its own answer, in [0, 1]; NaN where no voter has an answer.

    Args:
        answer: the number of what each row answers, from 0, equal for equal answers; -1: it has none.
        voters: which rows (second axis) vote about each row (first axis); those without an answer do not.
    """
    votes = _votes(answer, voters)
    own = votes.gather(1, answer.clamp_min(0)[:, None])[:, 0] * (answer >= 0)
    return own / votes.sum(1)


def majority_agreement(answer: Int[Tensor, " B"], voters: Bool[Tensor, "B B"]) -> Float[Tensor, " B"]:
    """1 where a row's answer is what most of its voters say, else 0; NaN where no voter has an answer.

    Co-Reward (2508.00410): r(y | q) = 1[ans(y) = the majority of the answers to the rephrased q]. Where m answers lead
    with equally many votes each of them counts 1 / m, whatever the order of the rows. Arguments as in `vote_share`.
    """
    votes = _votes(answer, voters)
    leading = (votes == votes.amax(1, keepdim=True)) & (votes > 0)
    own = leading.gather(1, answer.clamp_min(0)[:, None])[:, 0] & (answer >= 0)
    return own / leading.sum(1).to(votes.dtype)


def _votes(answer: Int[Tensor, " B"], voters: Bool[Tensor, "B B"]) -> Float[Tensor, "B A"]:
    """How many voters of each row give each answer."""
    given = torch.nn.functional.one_hot(answer.clamp_min(0), max(int(answer.max()) + 1, 1)) * (answer >= 0)[:, None]
    return voters.to(torch.float64) @ given.to(torch.float64)
