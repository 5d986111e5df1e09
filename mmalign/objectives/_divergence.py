"""How far the policy is from its reference, per step, in nats of the joint (summed over event dimensions).

With x drawn from the policy p and Δ = log p(x) - log q(x), q the reference (Schulman, "Approximating KL", 2020):

| name | value | its gradient, expected over x ~ p |
|---|---|---|
| k1 | Δ | zero: an unbiased value, useless as a loss |
| k2 | Δ²/2 | that of KL(p‖q) |
| k3 | exp(-Δ) - 1 + Δ, never negative | that of KL(q‖p); equal to the above to first order |
| gaussian | the closed form, for policies with Gaussian steps | exact, no sampling noise |

k3 grows like exp(-Δ): for latents, where Δ easily reaches many nats, take "gaussian". The mean over latent elements
that diffusion code publishes is this number divided by the event size; Flow-GRPO's code further leaves out the step's
|dt|, so its β is that of this KL times about 1/|dt|.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import StepDist

Divergence = Literal["k1", "k2", "k3", "gaussian"]


def k1(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Δ."""
    return logp - ref


def k2(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Δ²/2."""
    return (logp - ref).square() / 2


def k3(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """exp(-Δ) - 1 + Δ."""
    return (ref - logp).expm1() + (logp - ref)


def gaussian(mean: Tensor, std: Float[Tensor, "B T"], ref_mean: Tensor, ref_std: Tensor) -> Float[Tensor, "B T"]:
    """KL(N(mean, std²) ‖ N(ref_mean, ref_std²)) of (B, T, *event), summed over the event dimensions."""
    dims, ratio = mean[0, 0].numel(), std / ref_std
    spread = dims * ((ratio.square() - 1) / 2 - ratio.log())
    return squared_distance(mean, ref_mean) / (2 * ref_std.square()) + spread


def squared_distance(mean: Tensor, other: Tensor) -> Float[Tensor, "B T"]:
    """‖mean - other‖² of (B, T, *event), summed over the event dimensions in float32 or better."""
    wide = torch.promote_types(mean.dtype, torch.float32)
    return (mean.to(wide) - other.to(wide)).square().flatten(2).sum(2)


def divergence(kind: Divergence, dist: StepDist, ref: StepDist, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The chosen estimate at every step, 0 where not `mask`. Raises CapabilityError if "gaussian" has no mean."""
    if kind != "gaussian":
        logp, anchor = dist.log_prob.where(mask, 0.0), ref.log_prob.where(mask, 0.0)
        return {"k1": k1, "k2": k2, "k3": k3}[kind](logp, anchor)
    if dist.mean is None or dist.std is None or ref.mean is None or ref.std is None:
        raise CapabilityError(
            "divergence 'gaussian' needs the mean and std of every step, and this policy's steps have none; "
            "set divergence: k3 (or k1, k2)."
        )
    # Unused steps may be deterministic (std 0); their value is dropped, so any finite std will do.
    value = gaussian(dist.mean, dist.std.where(mask, 1.0), ref.mean, ref.std.where(mask, 1.0))
    return value.where(mask, 0.0)


__all__ = ["Divergence", "divergence", "gaussian", "k1", "k2", "k3", "squared_distance"]
