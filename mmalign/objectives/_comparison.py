"""Models of one judged comparison, as pure functions of the lead d = r_chosen - r_rejected.

With strengths p = e^r, each says how likely a win, a loss and a tie are; a loss is a win of the other side, win(-d).

| model | P(win) | P(tie) | source |
|---|---|---|---|
| half | p_c / (p_c + p_r) = σ(d) | no outcome of its own: half a win and half a loss | Bradley, Terry 1952 |
| rao_kupper | p_c / (p_c + θ p_r) = σ(d - log θ) | (θ² - 1) p_c p_r / ((p_c + θ p_r)(θ p_c + p_r)) | Rao, Kupper 1967 |
| davidson | p_c / (p_c + p_r + ν √(p_c p_r)) | ν √(p_c p_r) / (p_c + p_r + ν √(p_c p_r)) | Davidson 1970 |

`share` is the one number both tie models are given by: the probability of a tie between equally good outputs, so
θ = (1 + share)/(1 - share) and ν = 2 share/(1 - share).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor

Ties = Literal["half", "rao_kupper", "davidson"]
Row = Float[Tensor, " B"]


def log_win(lead: Row, ties: Ties, share: float) -> Row:
    """log P(the leading side is preferred)."""
    if ties == "rao_kupper":
        return torch.nn.functional.logsigmoid(lead - _log_theta(share))
    if ties == "davidson":
        return lead / 2 - _davidson_norm(lead, share)
    return torch.nn.functional.logsigmoid(lead)


def log_tie(lead: Row, ties: Ties, share: float) -> Row:
    """log P(neither is preferred); of `half`, the mean of log P(win) and log P(loss)."""
    if ties == "rao_kupper":
        eta = _log_theta(share)
        return (
            torch.nn.functional.logsigmoid(lead - eta)
            + torch.nn.functional.logsigmoid(-lead - eta)
            + math.log(math.expm1(2 * eta))
        )
    if ties == "davidson":
        return math.log(2 * share / (1 - share)) - _davidson_norm(lead, share)
    return (torch.nn.functional.logsigmoid(lead) + torch.nn.functional.logsigmoid(-lead)) / 2


def comparison_loss(
    lead: Row, margin: Row, label: Row, tie: Bool[Tensor, " B"], ties: Ties = "half", share: float = 0.2
) -> Row:
    """-log P(the recorded outcome).

    Args:
        lead: d = r_chosen - r_rejected.
        margin: m ≥ 0: whoever is preferred must lead by it, log P(win) is taken at d - m (Touvron et al. 2023, Llama 2,
            eq. 2). A tie has none.
        label: P(chosen is the better one); the expectation over it is exact.
        tie: the outcome was a tie; `label` is not looked at there.
        ties, share: the model, see above.
    """
    won, lost = log_win(lead - margin, ties, share), log_win(-lead - margin, ties, share)
    return -torch.where(tie, log_tie(lead, ties, share), label * won + (1 - label) * lost)


def centring(chosen: Row, rejected: Row) -> Row:
    """(r_c + r_r)²: scores are only known up to a constant per prompt, and this draws their mean to 0.

    Eisenstein et al. 2023, arXiv 2312.09244, eq. 2; `center_rewards_coefficient` of TRL.
    """
    return (chosen + rejected) ** 2


def _log_theta(share: float) -> float:
    """η = log θ with tanh(η/2) = share."""
    return 2 * math.atanh(share)


def _davidson_norm(lead: Row, share: float) -> Row:
    """log(e^{d/2} + e^{-d/2} + ν)."""
    nu = torch.full_like(lead, math.log(2 * share / (1 - share)))
    return torch.stack([lead / 2, -lead / 2, nu]).logsumexp(0)


__all__ = ["Ties", "centring", "comparison_loss", "log_tie", "log_win"]
