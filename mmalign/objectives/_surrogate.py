"""What a step earns from its probability ratio: the published surrogates, and the ratio's level.

Δ = log π_θ - log π_old of a step, A its advantage, sg(·) without gradient. `region` bounds the ratio, see `_ratio.py`.

| name | gain | source |
|---|---|---|
| clip | τ min(r A, clip(r) A); r ≤ `cap` in the first term | PPO, GRPO; cap: dual clip, 1912.09729 |
| cispo | sg(clip(r, 1-ε, 1+ε')) A log π_θ | CISPO (MiniMax-M1, 2506.13585), as verl has it; ε ≥ 1 is no lower bound |
| sapo | A σ(κ(r - 1)) 4/κ, κ = 1 if A > 0 else 1.05 | SAPO, 2511.20347, by TRL's code |
| vespo | sg(φ(r)) A log π_θ, φ = r^k e^(λ - λr), (k, λ) = (2, 3), or (3, 2) if A < 0 | VESPO, by TRL's code |
| score | A log π_θ | REINFORCE: exact on the policy's own samples only |

All have the gradient A ∇log π_θ at r = 1. Levels of r:

| level | Δ of a step | source |
|---|---|---|
| step | its own | GRPO, DAPO, CISPO |
| sequence | the mean over the steps of its output | GSPO (Zheng et al. 2025, 2507.18071) |
| joint | the sum over them | RLOO as a bandit (2402.14740), VESPO |
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor
from mmalign.objectives._ratio import FAR, Ratios, Region, clipped_gain, finite_exp

Surrogate = Literal["clip", "cispo", "sapo", "vespo", "score"]
Level = Literal["step", "sequence", "joint"]


def at_level(delta: Ratios, mask: Bool[Tensor, "B T"], level: Level) -> Ratios:
    """The log-ratio that every step is judged by, with gradient; 0 where not `mask`."""
    own = delta.where(mask, 0.0)
    if level == "step":
        return own
    total = own.sum(1, keepdim=True)
    shared = total / mask.sum(1, keepdim=True).clamp(min=1) if level == "sequence" else total
    return shared.expand_as(delta).where(mask, 0.0)


def gains(
    kind: Surrogate,
    delta: Ratios,
    log_prob: Float[Tensor, "B T"],
    advantage: Float[Tensor, " B #T"],
    region: Region,
    cap: float | None = None,
) -> tuple[Ratios, Ratios]:
    """The gain of every step and the ratio behind it; `delta` is at its level, `log_prob` the step's own."""
    if kind == "clip":
        return clipped_gain(delta, advantage, region, cap)
    if kind == "cispo":
        ratio = finite_exp(delta / region.temperature)
        return ratio.detach().clamp(1 - region.low, 1 + region.high) * advantage * log_prob, ratio
    ratio = delta.clamp(-FAR, FAR).exp()
    if kind == "sapo":
        return soft_gate(ratio, advantage), ratio
    if kind == "vespo":
        return gamma_weight(ratio.detach(), advantage) * advantage * log_prob, ratio
    return advantage * log_prob, ratio


def soft_gate(ratio: Ratios, advantage: Float[Tensor, " B #T"]) -> Ratios:
    """A σ(κ(r - 1)) 4/κ: a soft clip whose slope at r = 1 is A."""
    steepness = torch.where(advantage > 0, 1.0, 1.05)
    return advantage * (steepness * (ratio - 1)).sigmoid() * 4 / steepness


def gamma_weight(ratio: Ratios, advantage: Float[Tensor, " B #T"]) -> Ratios:
    """φ(r) = e^λ r^k e^(-λr): 1 at r = 1, falling to 0 on both sides of its peak."""
    good = advantage >= 0
    power, rate = torch.where(good, 2.0, 3.0), torch.where(good, 3.0, 2.0)
    return (rate + power * ratio.clamp(min=1e-8).log() - rate * ratio).exp()


__all__ = ["Level", "Surrogate", "at_level", "gains", "gamma_weight", "soft_gate"]
