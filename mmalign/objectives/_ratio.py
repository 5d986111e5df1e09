"""The clipped probability ratio, with a trust region that does not depend on the size of a step.

    gain = τ min(r A, clip(r, 1-ε, 1+ε') A),   r = exp(Δ/τ),   Δ the log-ratio of a step in nats of the joint

**Trust region.** Diffusion code takes the *mean* of the log-prob over D, so its clip c bounds c·D nats:

| latent | D | c = 1e-4 bounds | c = 1e-5 bounds |
|---|---|---|---|
| SD1.5 512 | 16 384 | 1.6 nats | 0.16 |
| SDXL 1024, SD3.5 512 | 65 536 | 6.6 nats | 0.66 |
| FLUX, SD3 1024 | 262 144 | 26 nats | 2.6 |

`clip_unit: nats` (default) means the same region for any D: ε = min(clip, 0.2), τ = max(1, clip/0.2), so 0.2 is PPO's
clip on the joint ratio and larger values widen it without the exponential running away. `clip_unit: mean` takes the
published number: τ = D, ε = clip (for tokens, D = 1, that is PPO's ε itself, also above 0.2). Both are the same for
tokens up to 0.2; above it, `clip: 0.3` in nats is τ = 1.5, ε = 0.2, and PPO's ε = 0.3 is `clip: 0.3, clip_unit: mean`.
`surrogate: cispo` has no τ in nats: its bounds are on the ratio itself, 1 - clip (none from 1 on) and 1 + clip_high.

The factor τ makes the gradient at r = 1 equal A ∇Δ in either unit; with τ = D the whole gain is D times the published
one, and since the KL is a sum too, a published β keeps its value (β 0.04 of Flow-GRPO's code, whose KL lacks |dt|, is
about 0.004 here at 10 steps).

**Guard** replaces Δ = Σ(ε·δ/s - δ²/2s²) (δ = μ - μ_old, s the step's std, ε its noise) by s Δ + ‖δ‖²/2s = Σ ε·δ: mean 0
under the old policy, and a scale that does not depend on the step. With `mean` the ratio is exp(mean(ε·δ)), as
published; with `nats` the bound is clip nats *times s*. The gradient at r = 1 is then s A ∇Δ = A ε·∇μ, which a flow's
short steps make small, for μ moves by |dt| times the velocity. So the gain of a step (not its KL) is divided by |dt|
where a policy tells it (`StepDist.dt`; flows do), as in the published code: all steps move the velocity alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import StepDist
from mmalign.objectives._divergence import squared_distance

Ratios = Float[Tensor, "B T"]
PPO_CLIP = 0.2
FAR = 20.0  # nats past which a ratio counts as this far: e²⁰ is beyond any bound, and stays finite


class Region(NamedTuple):
    """The trust region: ratio temperature and how far the ratio may move down and up."""

    temperature: float
    low: float
    high: float


def plain_bounds(clip: float, clip_high: float | None, unit: str, event_size: int) -> Region:
    """Bounds on the ratio itself, whatever they are: a weight is cut by them, and nothing has to be made finite."""
    return Region(float(event_size) if unit == "mean" else 1.0, clip, clip if clip_high is None else clip_high)


def trust_region(clip: float, clip_high: float | None, unit: str, event_size: int) -> Region:
    """τ, ε and ε' of a clip in nats of the joint, or in the mean-space unit of diffusion code (see the table above)."""
    temperature = float(event_size) if unit == "mean" else max(1.0, clip / PPO_CLIP)
    per = 1.0 if unit == "mean" else temperature
    return Region(temperature, clip / per, (clip if clip_high is None else clip_high) / per)


def finite_exp(log_ratio: Ratios) -> Ratios:
    """The ratio, with log-ratios past ±`FAR` counted as that far: infinity times a slope of 0 would be NaN for all."""
    beyond = log_ratio - log_ratio.clamp(-FAR, FAR)
    return (log_ratio - beyond.detach()).exp()


def clipped_gain(
    delta: Ratios, advantage: Float[Tensor, " B #T"], region: Region, cap: float | None = None
) -> tuple[Ratios, Ratios]:
    """τ min(r A, clip(r) A), and r = exp(Δ/τ); `cap` bounds the first r, which matters where A < 0 (dual clip)."""
    ratio = finite_exp(delta / region.temperature)
    bounded = ratio.clamp(1 - region.low, 1 + region.high)
    free = ratio if cap is None else ratio.clamp(max=cap)
    return region.temperature * torch.minimum(free * advantage, bounded * advantage), ratio


def guarded(dist: StepDist, old: StepDist, mask: Bool[Tensor, "B T"]) -> Ratios:
    """s Δ + ‖μ - μ_old‖²/2s, the zero-mean form of the log-ratio, in nats × std. Both stds are the schedule's."""
    if dist.mean is None or old.mean is None or old.std is None:
        raise CapabilityError("guard needs steps with a mean and a std, and this policy's have none; set guard: false.")
    std = old.std.where(mask, 1.0)
    shift = squared_distance(dist.mean, old.mean)
    return std * (dist.log_prob - old.log_prob) + shift / (2 * std)


__all__ = ["FAR", "Ratios", "Region", "clipped_gain", "finite_exp", "guarded", "plain_bounds", "trust_region"]
