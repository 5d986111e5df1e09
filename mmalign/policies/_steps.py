"""Pure sampler steps, (x, level, next level, prediction, noise, …) → (mean, std, next), and the maths around them.

`next = mean + std · noise`, or `mean` where noise is None. Levels are (B,), so every row may stand at its own.
Everywhere x_t = α x0 + σ ε; *event are the axes of one output's latents.

| paper                          | code         |
|--------------------------------|--------------|
| t, t′ (flow time)              | sigma, sigma_next; α = 1 − t |
| dt = t′ − t < 0                | sigma_next − sigma |
| v_θ(x_t, t)                    | velocity     |
| a (Flow-GRPO), η (CPS, Dance)  | noise_level  |
| σ_t (Flow-GRPO, diffusion coefficient) | diffusion |
| ᾱ, ᾱ′ (DDIM)                   | alpha², alpha_next² |

Sources: Flow-GRPO (Liu et al. 2025, 2505.05470, and its public code); CPS (Coefficients-Preserving Sampling,
in the same code base); DanceGRPO (Xue et al. 2025, 2505.07818); DDIM (Song et al. 2021, 2010.02502, eq. 12, 16).

Log-probs of these steps are those of the normalised Gaussian N(mean, std² I), summed over the event. Relation to the
published code, D = event size: Flow-GRPO, DanceGRPO and DDPO average over D, so their log-ratio is ours / D. The CPS
paper drops the normaliser and uses −mean (x′ − μ)², so its log-ratio is ours · 2 std² / D: a per-step temperature that
makes late, low-noise steps count less. Their clip ranges transfer by the same factors.

What a network's prediction says of the clean latents x0 and the noise ε, and back:

| kind    | prediction   | x0              | ε               |
|---------|--------------|-----------------|-----------------|
| flow    | v = ε − x0   | x − σ v         | x + α v         | (α = 1 − σ)
| epsilon | ε            | (x − σ ε) / α   | ε               |
| v       | v = α ε − σ x0 | α x − σ v     | α v + σ x       | (α² + σ² = 1; Salimans & Ho, 2202.00512)

In both velocity kinds an error of the prediction is an error of ε divided by α: ε̂ − ε = α (v̂ − v).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int

from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel

_PURE_NOISE = 0.999


class Step(NamedTuple):
    """One transition: `next` ~ N(mean, std² I); mean and next (B, *event), std (B,)."""

    mean: Tensor
    std: Tensor
    next: Tensor


@dataclass(frozen=True, kw_only=True)
class StepRule(ABC):
    """How a sampler steps along `levels`, K + 1 from noise to data: step k goes from level k to level k + 1.

    `index` (B,) says which step each row is at; `prediction` (B, *event) is the network's.
    """

    levels: NoiseLevel

    @abstractmethod
    def noisy(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor, noise: Tensor | None) -> Step:
        """Make the step that draws noise: its Gaussian, and x′ for `noise` (its mean for None)."""

    @abstractmethod
    def plain(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor) -> Step:
        """Make the deterministic step of rows x (B, *event), whose std is 0 and whose x′ is its mean."""

    @property
    def dt(self) -> Float[Tensor, " K"] | None:
        """The flow time, > 0, that each step covers; None where levels are no flow times."""
        return None

    @property
    def steps(self) -> int:
        """The number of steps K, one less than there are levels."""
        return len(self.levels.times) - 1

    def std(self) -> Float[Tensor, " K"]:
        """The std of every noisy step's noise; it depends on the levels alone."""
        index = torch.arange(self.steps, device=self.levels.sigma.device)
        zeros = torch.zeros(self.steps, 1, device=index.device)
        return self.noisy(zeros, index, zeros, None).std


def ode(
    x: Float[Tensor, " B *event"],
    sigma: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
    velocity: Float[Tensor, " B *event"],
) -> Step:
    """One Euler step of the flow's ODE, dx = v dt; std 0."""
    return _step(x + velocity * like(sigma_next - sigma, x), torch.zeros_like(sigma), None)


def flow_sde(
    x: Float[Tensor, " B *event"],
    sigma: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
    velocity: Float[Tensor, " B *event"],
    noise: Float[Tensor, " B *event"] | None,
    noise_level: float,
    second: Float[Tensor, ""],
) -> Step:
    """Flow-GRPO: the reverse SDE with the flow's marginals and σ_t = a √(t / (1 − t)), one Euler-Maruyama step.

    At t = 1 σ_t is infinite; as in the public code, `second` (the schedule's second level) stands in for t in 1 − t,
    which makes the first step's std exactly a whatever the number of steps.
    """
    below_one = torch.where(sigma > _PURE_NOISE, second.to(sigma), sigma)
    return _reverse_sde(x, sigma, sigma_next, velocity, noise, noise_level * (sigma / (1 - below_one)).sqrt())


def dance(
    x: Float[Tensor, " B *event"],
    sigma: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
    velocity: Float[Tensor, " B *event"],
    noise: Float[Tensor, " B *event"] | None,
    noise_level: float,
) -> Step:
    """DanceGRPO: the same reverse SDE with a constant diffusion coefficient σ_t = η.

    Its code writes the drift as v − ½ η² · score with score = −(x − (1 − t) x̂0) / t² = −ε̂ / t: the same thing.
    """
    return _reverse_sde(x, sigma, sigma_next, velocity, noise, torch.full_like(sigma, noise_level))


def cps(
    x: Float[Tensor, " B *event"],
    sigma: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
    velocity: Float[Tensor, " B *event"],
    noise: Float[Tensor, " B *event"] | None,
    noise_level: float,
) -> Step:
    """Coefficients-Preserving Sampling: DDIM's η written for flows, std = t′ sin(η π / 2).

    The coefficients of signal and noise at t′ are kept exactly, so no noise is left that later steps cannot remove. The
    marginals are exact where the clean prediction is (data of one point); spread data come out narrower, at any number
    of steps: fresh noise replaces an estimate ε̂ that carried part of the spread (N(·, 0.4²) becomes N(·, 0.32²) at
    η = 0.8 as steps → ∞, measured). The two SDEs have no such bias in the limit, and residual noise before it.
    """
    clean, epsilon = x - like(sigma, x) * velocity, x + like(1 - sigma, x) * velocity
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    return renoise(clean, epsilon, 1 - sigma_next, sigma_next, std, noise)


def renoise(
    clean: Float[Tensor, " B *event"],
    epsilon: Float[Tensor, " B *event"],
    alpha_next: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
    std: Float[Tensor, " B"],
    noise: Float[Tensor, " B *event"] | None,
) -> Step:
    """x′ = α′ x0 + √(σ′² − std²) ε + std z (DDIM eq. 12): `std` of the level's noise is fresh; 0 ≤ std ≤ σ′."""
    remaining = (sigma_next.square() - std.square()).clamp(min=0).sqrt()
    return _step(like(alpha_next, clean) * clean + like(remaining, clean) * epsilon, std, noise)


def posterior_std(
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    alpha_next: Float[Tensor, " B"],
    sigma_next: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """Std of x′ given x and x0 under the forward process: DDIM's σ at η = 1 (eq. 16), ancestral sampling.

    For α² + σ² = 1 it is √((1 − ᾱ′)/(1 − ᾱ) · (1 − ᾱ/ᾱ′)); from pure noise (α = 0) it is σ′, full resampling.
    """
    step = (alpha / alpha_next).square()
    variance = sigma_next.square() * (1 - step * (sigma_next / sigma).square())
    return variance.clamp(min=0).sqrt()


def normal_log_prob(
    value: Float[Tensor, " B *event"], mean: Float[Tensor, " B *event"], std: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """log N(value; mean, std² I) per row, in nats: a sum over the event, never a mean; std > 0.

    Low-precision inputs are lifted to float32 first: squares of bfloat16 differences lose the ratio.
    """
    value, mean, std = _lift(value), _lift(mean), _lift(std)
    size = value[0].numel()
    z = (value - mean).flatten(1) / std[:, None]
    return -0.5 * z.square().sum(1) - size * (std.log() + 0.5 * math.log(2 * math.pi))


def like(value: Float[Tensor, " B"], x: Float[Tensor, " B *event"]) -> Tensor:
    """`value` (B,) with trailing axes, (B, 1, …), so that it multiplies the rows of `x`."""
    return value.reshape(-1, *[1] * (x.ndim - 1))


def clean_and_noise(
    kind: Prediction,
    x: Float[Tensor, " B *event"],
    prediction: Float[Tensor, " B *event"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> tuple[Tensor, Tensor]:
    """(x0, ε), each (B, *event), that `prediction` implies at x. "epsilon" needs α > 0."""
    a, s = like(alpha, x), like(sigma, x)
    if kind == "flow":
        return x - s * prediction, x + a * prediction
    if kind == "epsilon":
        return (x - s * prediction) / a, prediction
    return a * x - s * prediction, a * prediction + s * x


def target(
    kind: Prediction,
    clean: Float[Tensor, " B *event"],
    noise: Float[Tensor, " B *event"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> Tensor:
    """What the network should predict at α x0 + σ ε, (B, *event): the inverse of `clean_and_noise`."""
    if kind == "flow":
        return noise - clean
    if kind == "epsilon":
        return noise
    return like(alpha, clean) * noise - like(sigma, clean) * clean


def _reverse_sde(
    x: Tensor, sigma: Tensor, sigma_next: Tensor, velocity: Tensor, noise: Tensor | None, diffusion: Tensor
) -> Step:
    """dx = [v + σ_t² / (2t) (x + (1 − t) v)] dt + σ_t dW from t to t′."""
    dt = sigma_next - sigma
    pull = diffusion.square() / (2 * sigma) * dt
    mean = x * like(1 + pull, x) + velocity * like(dt + pull * (1 - sigma), x)
    return _step(mean, diffusion * (-dt).sqrt(), noise)


def _step(mean: Tensor, std: Tensor, noise: Tensor | None) -> Step:
    return Step(mean, std, mean if noise is None else mean + like(std, mean) * noise)


def _lift(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
