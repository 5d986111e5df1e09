"""The policy gradient of one step: importance ratio, trust region, surrogate objective, and KL from the reference.

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

**Guard** (`guard_log_ratio`) replaces Δ = Σ(ε·δ/s - δ²/2s²) (δ = μ - μ_old, s the step's std, ε its noise) by
s Δ + ‖δ‖²/2s = Σ ε·δ: mean 0 under the old policy, and a scale that does not depend on the step. With `mean` the ratio
is exp(mean(ε·δ)), as published; with `nats` the bound is clip nats *times s*. The gradient at r = 1 is then
s A ∇Δ = A ε·∇μ, which a flow's short steps make small, for μ moves by |dt| times the velocity. So the gain of a step
(not its KL) is divided by |dt| where a policy tells it (`StepDist.dt`; flows do), as in the published code: all steps
move the velocity alike.

**Surrogates** (`surrogate_objective`): Δ = log π_θ - log π_old of a step, A its advantage, sg(·) without gradient. All
have the gradient A ∇log π_θ at r = 1.

| name | gain | source |
|---|---|---|
| clip | τ min(r A, clip(r) A); r ≤ `cap` in the first term | PPO, GRPO; cap: dual clip, 1912.09729 |
| cispo | sg(clip(r, 1-ε, 1+ε')) A log π_θ | CISPO (MiniMax-M1, 2506.13585), as verl has it; ε ≥ 1 is no lower bound |
| sapo | A σ(κ(r - 1)) 4/κ, κ = 1 if A > 0 else 1.05 | SAPO, 2511.20347, by TRL's code |
| vespo | sg(φ(r)) A log π_θ, φ = r^k e^(λ - λr), (k, λ) = (2, 3), or (3, 2) if A < 0 | VESPO, by TRL's code |
| score | A log π_θ | REINFORCE: exact on the policy's own samples only |

**Levels of the importance ratio** (`importance_log_ratio`):

| level | Δ of a step | source |
|---|---|---|
| step | its own | GRPO, DAPO, CISPO |
| sequence | the mean over the steps of its output | GSPO (Zheng et al. 2025, 2507.18071) |
| joint | the sum over them | RLOO as a bandit (2402.14740), VESPO |

**KL from the reference** (`divergence`), per step, in nats of the joint. With x drawn from the policy p and
Δ = log p(x) - log q(x), q the reference (Schulman, "Approximating KL", 2020):

| name | value | its gradient, expected over x ~ p |
|---|---|---|
| k1 | Δ | zero: an unbiased value, useless as a loss |
| k2 | Δ²/2 | that of KL(p‖q) |
| k3 | exp(-Δ) - 1 + Δ, never negative | that of KL(q‖p); equal to the above to first order |
| gaussian | the closed form, for policies with Gaussian steps | exact, no sampling noise |
| velocity | no KL: ‖v_θ - v_ref‖², for flows; summed over the event, guidance included | exact; all steps weigh alike |

"velocity" is `kl_type: v-based` of Flow-Factory's code, which averages over the event: as a sum beside a gain that is D
times the published one it keeps a published β. A step's mean is linear in its velocity, so the Gaussian KL is
(∂mean/∂v)² / (2 std²) times it: |dt|/2 · (σ_t (1 - t)/(2t) + 1/σ_t)² for Flow-GRPO's steps, which weighs short and late
steps less. It is logged as `kl/velocity`, for it is not in nats.

k3 grows like exp(-Δ): for latents, where Δ easily reaches many nats, take "gaussian". The mean over latent elements
that diffusion code publishes is this number divided by the event size; Flow-GRPO's code further leaves out the step's
|dt|, so its β is that of this KL times about 1/|dt|.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Transitions
from mmalign.core.tensor import Tensor
from mmalign.core.types import StepDist

Ratios = Float[Tensor, "B T"]
Surrogate = Literal["clip", "cispo", "sapo", "vespo", "score"]
RatioLevel = Literal["step", "sequence", "joint"]
Divergence = Literal["k1", "k2", "k3", "gaussian", "velocity"]

METRIC_OF = {"velocity": "kl/velocity"}  # of a divergence that is not in nats; of all others `kl/reference`
NO_MOMENTS = "guard needs steps with a mean and a std, and this policy's have none; set guard: false."
NO_VELOCITY = (
    "divergence 'velocity' compares the velocities of a flow, and this policy's steps have none; "
    "set divergence: gaussian for diffusion, or k3 for tokens."
)
PPO_CLIP = 0.2
FAR = 20.0  # nats past which a ratio counts as this far: e²⁰ is beyond any bound, and stays finite


class Region(NamedTuple):
    """The trust region: ratio temperature and how far the ratio may move down and up."""

    temperature: float
    low: float
    high: float


def ratio_bounds(clip: float, clip_high: float | None, unit: str, event_size: int) -> Region:
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


def clipped_surrogate(
    delta: Ratios, advantage: Float[Tensor, " B #T"], region: Region, cap: float | None = None
) -> tuple[Ratios, Ratios]:
    """τ min(r A, clip(r) A), and r = exp(Δ/τ); `cap` bounds the first r, which matters where A < 0 (dual clip)."""
    ratio = finite_exp(delta / region.temperature)
    bounded = ratio.clamp(1 - region.low, 1 + region.high)
    free = ratio if cap is None else ratio.clamp(max=cap)
    return region.temperature * torch.minimum(free * advantage, bounded * advantage), ratio


def guard_log_ratio(dist: StepDist, old: StepDist, mask: Bool[Tensor, "B T"]) -> Ratios:
    """s Δ + ‖μ - μ_old‖²/2s, the zero-mean form of the log-ratio, in nats × std. Both stds are the schedule's."""
    if dist.mean is None or old.mean is None or old.std is None:
        raise CapabilityError(NO_MOMENTS)
    std = old.std.where(mask, 1.0)
    shift = squared_distance(dist.mean, old.mean)
    return std * (dist.log_prob - old.log_prob) + shift / (2 * std)


def importance_log_ratio(delta: Ratios, mask: Bool[Tensor, "B T"], level: RatioLevel) -> Ratios:
    """Return the log-ratio that every step is judged by, with gradient; 0 where not `mask`."""
    own = delta.where(mask, 0.0)
    if level == "step":
        return own
    total = own.sum(1, keepdim=True)
    shared = total / mask.sum(1, keepdim=True).clamp(min=1) if level == "sequence" else total
    return shared.expand_as(delta).where(mask, 0.0)


def require_whole_outputs(chunk: Transitions, level: RatioLevel) -> None:
    """Raise CapabilityError where `chunk` has some of its outputs' steps, and not all."""
    steps = chunk.rollout.step_logp if chunk.rollout.mask is None else chunk.rollout.mask
    if steps is not None and steps.shape[1] != chunk.mask.shape[1]:
        raise CapabilityError(
            f"ratio: {level} is of whole outputs, and this part has some steps; set trainer.steps_per_pass: 0."
        )


def surrogate_objective(
    kind: Surrogate,
    delta: Ratios,
    log_prob: Float[Tensor, "B T"],
    advantage: Float[Tensor, " B #T"],
    region: Region,
    cap: float | None = None,
) -> tuple[Ratios, Ratios]:
    """Return the gain of every step and the ratio behind it; `delta` is at its level, `log_prob` the step's own."""
    if kind == "clip":
        return clipped_surrogate(delta, advantage, region, cap)
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
    """SAPO's gain of every step, A σ(κ(r - 1)) 4/κ: a soft clip of the ratio r, whose slope at r = 1 is A."""
    steepness = torch.where(advantage > 0, 1.0, 1.05)
    return advantage * (steepness * (ratio - 1)).sigmoid() * 4 / steepness


def gamma_weight(ratio: Ratios, advantage: Float[Tensor, " B #T"]) -> Ratios:
    """VESPO's weight of every step, φ(r) = e^λ r^k e^(-λr): 1 at r = 1, falling to 0 on both sides of its peak."""
    good = advantage >= 0
    power, rate = torch.where(good, 2.0, 3.0), torch.where(good, 3.0, 2.0)
    return (rate + power * ratio.clamp(min=1e-8).log() - rate * ratio).exp()


def k1(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Return the log-ratio of the sample, k1 = Δ = `logp` - `ref`, nats of the joint per step."""
    return logp - ref


def k2(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Half the squared log-ratio, k2 = Δ²/2 with Δ = `logp` - `ref`, nats of the joint per step."""
    return (logp - ref).square() / 2


def k3(logp: Float[Tensor, "B T"], ref: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The estimate that is never negative, k3 = exp(-Δ) - 1 + Δ with Δ = `logp` - `ref`, nats of the joint per step."""
    return (ref - logp).expm1() + (logp - ref)


def gaussian_kl(mean: Tensor, std: Float[Tensor, "B T"], ref_mean: Tensor, ref_std: Tensor) -> Float[Tensor, "B T"]:
    """KL(N(mean, std²) ‖ N(ref_mean, ref_std²)) of (B, T, *event), summed over the event dimensions."""
    dims, ratio = mean[0, 0].numel(), std / ref_std
    of_stds = dims * ((ratio.square() - 1) / 2 - ratio.log())
    return squared_distance(mean, ref_mean) / (2 * ref_std.square()) + of_stds


def velocity(mean: Tensor, ref_mean: Tensor, slope: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """‖v - v_ref‖² of the velocities behind two means (B, T, *event) at one x, summed over the event.

    `slope` is ∂mean/∂v, never 0, as `VelocityPolicy.mean_slope` gives it.
    """
    return squared_distance(mean, ref_mean) / slope.square()


def squared_distance(mean: Tensor, other: Tensor) -> Float[Tensor, "B T"]:
    """‖mean - other‖² of (B, T, *event), summed over the event dimensions in float32 or better."""
    wide = torch.promote_types(mean.dtype, torch.float32)
    return (mean.to(wide) - other.to(wide)).square().flatten(2).sum(2)


def divergence(
    kind: Divergence,
    dist: StepDist,
    ref: StepDist,
    mask: Bool[Tensor, "B T"],
    slope: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """The chosen estimate at every step, 0 where not `mask`; "velocity" needs the `slope` of the means, see there.

    Raises CapabilityError if "gaussian" has no mean and std, or "velocity" no mean and slope.
    """
    if kind == "velocity":
        if dist.mean is None or ref.mean is None or slope is None:
            raise CapabilityError(NO_VELOCITY)
        return velocity(dist.mean, ref.mean, slope).where(mask, 0.0)
    if kind != "gaussian":
        logp, anchor = dist.log_prob.where(mask, 0.0), ref.log_prob.where(mask, 0.0)
        return {"k1": k1, "k2": k2, "k3": k3}[kind](logp, anchor)
    if dist.mean is None or dist.std is None or ref.mean is None or ref.std is None:
        raise CapabilityError(
            "divergence 'gaussian' needs the mean and std of every step, and this policy's steps have none; "
            "set divergence: k3 (or k1, k2)."
        )
    # Unused steps may be deterministic (std 0); their value is dropped, so any finite std will do.
    value = gaussian_kl(dist.mean, dist.std.where(mask, 1.0), ref.mean, ref.std.where(mask, 1.0))
    return value.where(mask, 0.0)


__all__ = [
    "FAR",
    "METRIC_OF",
    "NO_MOMENTS",
    "NO_VELOCITY",
    "Divergence",
    "RatioLevel",
    "Ratios",
    "Region",
    "Surrogate",
    "clipped_surrogate",
    "divergence",
    "finite_exp",
    "gamma_weight",
    "gaussian_kl",
    "guard_log_ratio",
    "importance_log_ratio",
    "k1",
    "k2",
    "k3",
    "ratio_bounds",
    "require_whole_outputs",
    "soft_gate",
    "squared_distance",
    "surrogate_objective",
    "trust_region",
    "velocity",
]
