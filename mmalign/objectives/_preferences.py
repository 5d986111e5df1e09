"""Preference losses and models of comparisons, as pure functions of (B,) rows, and the labels that comparisons have.

**Losses of a policy.** c = β ρ_chosen, r = β ρ_rejected, z = c - r, ρ = log π - log π_ref (nats), label = P(chosen is
the better one). Each returns a loss per row that falls as z grows towards its optimum; expectations over the label are
taken exactly (the squared losses: up to a constant).

| name | loss at label 1 | optimum | source |
|---|---|---|---|
| sigmoid | -log σ(z) | z = logit(label) | DPO, Rafailov et al. 2023, eq. 7; smoothing: cDPO, Mitchell 2023 |
| robust | as sigmoid, of labels freed of a known share ε of flips: (label - ε)/(1 - 2ε) | | 2403.00409 |
| hinge | max(0, 1 - z) | z = ±1 | SLiC, Zhao et al. 2023 |
| ipo | (z - 1/2)² | z = label - 1/2 | IPO, Azar et al. 2023, times β² to match the scale of the others |
| exo_pair | KL of σ(z) from the smoothed label | z = logit(label) | EXO, 2402.00856, eq. 16 |
| discopop | (1 - g)(-log σ(z)) + g e^-z, g = σ(z/0.05) | none | DiscoPOP, 2406.08414, eq. 5 |
| nca_pair | -log σ(c) - ½ log σ(-c) - ½ log σ(-r) | | NCA, 2402.05369 |
| bco_pair | -log σ(c) - log σ(-r) | none | BCO, 2404.04656, without its running δ |
| sppo_hard | (c - 1/2)² + (r + 1/2)² | c = 1/2 = -r | SPPO, 2405.00675, eq. 4.7, times β² |
| apo_zero | 1 - σ(c) + σ(r) | none | APO, 2408.06266, eq. 7 |
| apo_down | σ(c) + 1 - σ(z) | none | APO, eq. 8 |
| kto | ½[1 - σ(c - q)] + ½[1 - σ(q - r)] | none | KTO, Ethayarajh et al. 2024 |
| orpo | -log σ(logit e^c - logit e^r), c and r mean log-probs, no reference | none | ORPO, 2403.07691, eq. 6-7 |
| copg | ½ (gap - z)², gap the difference of rewards | z = gap | CoPG, 2406.19185; half of ipo at gap 1/2 |

A *squared* loss of a noisy estimate is biased: E(z-t)² = (E z-t)² + Var z, and Var z shrinks with the update itself, so
the optimum does too. `ipo`, `sppo_hard` and `copg` therefore multiply two independent estimates, (z₁ - t)(z₂ - t):
value and gradient are unbiased. Pass the same tensor twice where z is exact (tokens).

**Models of one judged comparison** (`log_win`, `log_tie`), of the lead d = r_chosen - r_rejected of a reward model's
scores. With strengths p = e^r, each says how likely a win, a loss and a tie are; a loss is a win of the other side,
win(-d).

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
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import DataError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Preference

_CERTAIN = 1e-6  # a mean log-prob this near to 0 counts as this far from it

LossType = Literal[
    "sigmoid",
    "robust",
    "hinge",
    "ipo",
    "exo_pair",
    "discopop",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "kto",
    "orpo",
]
Ties = Literal["half", "rao_kupper", "davidson"]
Row = Float[Tensor, " B"]
Estimates = tuple[Row, Row]  # two independent estimates of one number per row, or the exact number twice
Side = Callable[[Tensor, Tensor], Tensor]


def sigmoid(z: Row, label: Row) -> Row:
    """DPO's loss of each pair, -label log σ(z) - (1 - label) log σ(-z); `z` in nats times β, `label` in [0, 1]."""
    return -label * _log_sigmoid(z) - (1 - label) * _log_sigmoid(-z)


def hinge(z: Row, label: Row) -> Row:
    """SLiC's loss of each pair, label max(0, 1 - z) + (1 - label) max(0, 1 + z)."""
    return label * torch.nn.functional.relu(1 - z) + (1 - label) * torch.nn.functional.relu(1 + z)


def ipo(one: Row, other: Row, label: Row) -> Row:
    """IPO's loss of each pair, (z₁ - t)(z₂ - t), t = label - 1/2; z₁, z₂ are independent estimates, or both exact."""
    target = label - 0.5
    return (one - target) * (other - target)


def copg(one: Row, other: Row, gap: Row) -> Row:
    """CoPG's loss of each pair, ½ (gap - z₁)(gap - z₂), from two independent estimates of z (or the exact z twice)."""
    return (gap - one) * (gap - other) / 2


def exo_pair(z: Row, label: Row) -> Row:
    """EXO's loss of each pair, KL((σ(z), σ(-z)) ‖ (label, 1 - label)); the label must lie in (0, 1)."""
    return z.sigmoid() * (_log_sigmoid(z) - label.log()) + (-z).sigmoid() * (_log_sigmoid(-z) - (1 - label).log())


def discopop(z: Row, label: Row, tau: float = 0.05) -> Row:
    """DiscoPOP's loss of each pair, which blends the logistic and the exponential loss by σ(z/τ).

    As published it rises with z at z = 0 (slope +0.78 at τ = 0.05): pairs that start there drift apart the wrong way.
    """

    def one(z: Row) -> Row:
        gate = (z / tau).sigmoid()
        return -(1 - gate) * _log_sigmoid(z) + gate * (-z).exp()

    return label * one(z) + (1 - label) * one(-z)


def expected_over_label(loss: Side, chosen: Row, rejected: Row, label: Row) -> Row:
    """Return the mean of a loss of two sides over which of them is better: the chosen one with probability `label`."""
    return label * loss(chosen, rejected) + (1 - label) * loss(rejected, chosen)


def nca_pair(chosen: Row, rejected: Row) -> Row:
    """NCA's loss of each pair, -log σ(c) - ½ log σ(-c) - ½ log σ(-r)."""
    return -_log_sigmoid(chosen) - (_log_sigmoid(-chosen) + _log_sigmoid(-rejected)) / 2


def bco_pair(chosen: Row, rejected: Row) -> Row:
    """BCO's loss of each pair, -log σ(c) - log σ(-r)."""
    return -_log_sigmoid(chosen) - _log_sigmoid(-rejected)


def apo_zero(chosen: Row, rejected: Row) -> Row:
    """APO's loss of each pair that raises the chosen and lowers the rejected output, 1 - σ(c) + σ(r)."""
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down(chosen: Row, rejected: Row) -> Row:
    """APO's loss of each pair that lowers both outputs and the rejected one more, σ(c) + 1 - σ(c - r)."""
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


def orpo(chosen: Row, rejected: Row) -> Row:
    """ORPO's loss of each pair, -log σ of the log odds ratio; both sides are mean log-probs, below 0.

    Closer to 0 than `_CERTAIN` the odds are those of `_CERTAIN`, without gradient: in float32 a sure answer has 0.
    """
    chosen, rejected = chosen.clamp(max=-_CERTAIN), rejected.clamp(max=-_CERTAIN)
    return -_log_sigmoid((chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected)))


def sppo_hard(chosen: Estimates, rejected: Estimates, label: Row) -> Row:
    """SPPO's loss of each pair, (c₁ - t)(c₂ - t) + (r₁ + t)(r₂ + t), t = label - 1/2; each side is estimated twice."""
    target = label - 0.5
    return (chosen[0] - target) * (chosen[1] - target) + (rejected[0] + target) * (rejected[1] + target)


def kto(chosen: Row, rejected: Row, point: Row, label: Row, weights: tuple[float, float] = (1.0, 1.0)) -> Row:
    """KTO's loss of each pair, which judges both sides on their own: `chosen` and `rejected` are β ρ, `point` is β q.

    `weights` are those of desirable and undesirable outputs.
    """
    good, bad = weights
    up, down = (chosen - point).sigmoid(), (rejected - point).sigmoid()
    agree, disagree = good * (1 - up) + bad * down, bad * up + good * (1 - down)
    return (label * agree + (1 - label) * disagree) / 2


def smooth_labels(label: Row, smoothing: float) -> Row:
    """The probability that the chosen side is preferred once a share `smoothing` of the comparisons is flipped."""
    return label * (1 - smoothing) + (1 - label) * smoothing


def unflip_labels(label: Row, share: float) -> Row:
    """Return the label that has `label` as its mean after a known share of flips: outside [0, 1] for a sure label."""
    return (label - share) / (1 - 2 * share)


def pair_accuracy(lead: Row, label: Row) -> Row:
    """1 where the sign of the lead is on the label's side, 0 where on the other, 1/2 where either has no side."""
    return (1 + lead.sign() * (label.to(lead) - 0.5).sign()) / 2


def _log_sigmoid(x: Row) -> Row:
    return torch.nn.functional.logsigmoid(x)


def _log1mexp(x: Row) -> Row:
    """log(1 - e^x) for x < 0."""
    near = x > -0.6931
    return torch.where(near, (-x.where(near, -1.0).expm1()).log(), (-x.where(~near, -1.0).exp()).log1p())


def halves(terms: Float[Tensor, "B T"]) -> Estimates:
    """Two independent estimates of the sum of T (even) independent terms: from the even and from the odd ones."""
    return 2 * terms[:, ::2].sum(1), 2 * terms[:, 1::2].sum(1)


def log_win(lead: Row, ties: Ties, share: float) -> Row:
    """The log-probability, in nats, that the side which leads by `lead` is preferred; `share` is that of ties."""
    if ties == "rao_kupper":
        return _log_sigmoid(lead - _log_theta(share))
    if ties == "davidson":
        return lead / 2 - _davidson_norm(lead, share)
    return _log_sigmoid(lead)


def log_tie(lead: Row, ties: Ties, share: float) -> Row:
    """The log-probability, in nats, that neither is preferred; of `half`, the mean of log P(win) and log P(loss)."""
    if ties == "rao_kupper":
        eta = _log_theta(share)
        return _log_sigmoid(lead - eta) + _log_sigmoid(-lead - eta) + math.log(math.expm1(2 * eta))
    if ties == "davidson":
        return math.log(2 * share / (1 - share)) - _davidson_norm(lead, share)
    return (_log_sigmoid(lead) + _log_sigmoid(-lead)) / 2


def comparison_loss(
    lead: Row, margin: Row, label: Row, tie: Bool[Tensor, " B"], ties: Ties = "half", share: float = 0.2
) -> Row:
    """Return the negative log-likelihood of each recorded comparison, in nats.

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
    """Return the centring term of each pair, (r_c + r_r)², which draws the mean of the scores of a prompt to 0.

    Scores are only known up to a constant per prompt.
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


#: Losses of the lead z alone, of one estimate of it; `robust` is `sigmoid` of other labels.
OF_LEAD: dict[str, Callable[[Row, Row], Row]] = {
    "sigmoid": sigmoid,
    "robust": sigmoid,
    "hinge": hinge,
    "exo_pair": exo_pair,
    "discopop": discopop,
}
#: Losses of c and r, each of which may be the better one.
OF_SIDES: dict[str, Side] = {
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
}
#: Losses that square an estimate, and so need two.
SQUARED = ("ipo", "sppo_hard", "copg")


def labels(batch: Sequence[Preference], device: torch.device | str) -> Float[Tensor, " B"] | None:
    """P(chosen is better) from `meta["label"]` where any row has one (1 where missing); None if no row has."""
    entries = [preference.prompt.meta.get("label") for preference in batch]
    if all(label in (None, "") for label in entries):
        return None
    known = [1.0 if label in (None, "") else finite_number(label) for label in entries]
    for row, label in enumerate(known):
        if label is None or not 0 <= label <= 1:
            raise DataError(
                f"row {row} of the batch: meta.label is {entries[row]!r}; expected P(chosen is better) in [0, 1]."
            )
    return torch.tensor(known, device=device)


def finite_number(value: Any) -> float | None:
    """Read a column's entry as a finite number, also from text, as CSV files have it; None where it is none."""
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        return None
    return parsed if math.isfinite(parsed) else None


__all__ = [
    "OF_LEAD",
    "OF_SIDES",
    "SQUARED",
    "LossType",
    "Ties",
    "apo_down",
    "apo_zero",
    "bco_pair",
    "centring",
    "comparison_loss",
    "copg",
    "discopop",
    "exo_pair",
    "expected_over_label",
    "halves",
    "hinge",
    "ipo",
    "kto",
    "log_tie",
    "log_win",
    "nca_pair",
    "orpo",
    "pair_accuracy",
    "sigmoid",
    "smooth_labels",
    "sppo_hard",
    "unflip_labels",
]
