"""Few-step generators whose output carries gradient to the weights: the policy of R0 and R0+.

R0 (Luo et al. 2025, 2503.13070; v2 "Reward-Instruct"): K = 4 denoising steps started from the pretrained network,
with a random stochasticity η at every step, trained by the gradient of rewards on the output. R0+: a random
intermediate step j, no gradient on the path before it, and the clean prediction at step j is the output.
Reconstruction: the paper's equations were out of reach; the range of η, the step rule and the form of the implicit
guidance reward are ours.

| paper              | code |
|--------------------|------|
| x_{t_k}, t_k       | x, levels[k] |
| η_k ~ U            | draws["eta"] (B, K − 1) |
| z_k ~ N(0, I)      | draws["renoise"] (B, K − 1, *latent) |
| j ~ U{0 … K − 1} (R0+) | draws["step"] (B,) |
| x̂0, ê              | clean, epsilon |

One step: x′ = α′ x̂0 + √(σ′² − s²) ê + s z, with s = η σ′ (spread "resample": from the ODE at η = 0 to full resampling
at η = 1) or s = η · the DDIM posterior std (spread "posterior": ancestral sampling at η = 1). The output is the last
step's clean prediction. With η = 0, `grad_steps: n` is DRaFT-K's truncation at K = n (Clark et al., 2309.17400).

For policy gradients (GRPO) on a few-step model use policy 'flow' or 'ddpm' with `num_inference_steps: 4`: the same
steps with log-probs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float

from mmalign.core.options import AtLeastOne, Count, NotNegative, Share, at_least, one_of, within
from mmalign.core.protocols import Condition, LatentAdapter, Probe
from mmalign.core.rng import Noise, rand, randn
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import NoiseLevel, Prompt, Rollout, groups
from mmalign.core.unloaded import Unloaded
from mmalign.policies._base import (
    LatentPolicy,
    Predict,
    Saturation,
    both_predictions,
    check_finite,
    decode_in_range,
    guided,
    in_range,
    micro_batches,
    require_kind,
)
from mmalign.policies._diffusion import ALSO_CALLED
from mmalign.policies._steps import clean_and_noise, like, posterior_std, renoise

Spread = Literal["resample", "posterior"]
R = TypeVar("R")


@dataclass
class FewStep(LatentPolicy):
    """A K-step reparameterised sampler around an adapter of any prediction.

    Args:
        adapter: a `LatentAdapter`.
        num_inference_steps: K.
        eta: stochasticity per step in [0, 1]: one number, or (low, high) drawn uniformly per row and step (R0).
        spread: what η scales, see above.
        guidance_scale: classifier-free guidance inside the sampler; at most 1 is none (R0's student has none).
        detach_unconditional: no gradient through the unconditional branch.
        grad_steps: only the last so many steps carry gradient; 0 is all of them.
        random_step: R0+; every row takes gradient at its own random step alone.
        checkpoint: recompute each step, and the decoding, in backward: memory of one forward instead of K.
        saturation: how outputs come into [0, 1] in `rsample`. "straight_through" clamps the value and passes the
            gradient as if it had not; "clamp" gives saturated pixels no gradient, so they can never come back; "off"
            leaves values outside the range, for rewards that accept them.
        guide_levels: (low, high) shares of the training schedule at which `guidance_direction` evaluates the reference.
        guide_scale: its classifier-free guidance; None is the limit where nothing else counts (R0's implicit reward).
        eval_steps, eval_guidance_scale: of `generate` (η = 0); None is those of `rsample`.
        rows: micro-batch of `sample` and `generate`; 0 is all rows at once.

    Raises:
        ValueError: an option out of range.
    """

    adapter: Unloaded[LatentAdapter]
    num_inference_steps: AtLeastOne = 4
    eta: Share | tuple[Share, Share] = (0.0, 1.0)
    spread: Spread = "resample"
    guidance_scale: NotNegative = 1.0
    detach_unconditional: bool = False
    grad_steps: Count = 0
    random_step: bool = False
    checkpoint: bool = False
    saturation: Saturation = "straight_through"
    guide_levels: tuple[float, float] = (0.02, 0.98)
    guide_scale: NotNegative | None = None
    eval_steps: AtLeastOne | None = None
    eval_guidance_scale: NotNegative | None = None
    rows: Count = 0

    also_called: ClassVar[dict[str, str]] = ALSO_CALLED

    def __post_init__(self) -> None:
        require_kind("few_step", "latents", self.adapter)
        one_of("spread", self.spread, Spread)
        one_of("saturation", self.saturation, Saturation)
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("eval_steps", self.eval_steps, 1)
        at_least("rows", self.rows, 0)
        within("grad_steps", self.grad_steps, 0, self.num_inference_steps)
        for name, (low, high) in {"eta": self._eta_range, "guide_levels": self.guide_levels}.items():
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} is ({low:g}, {high:g}); it must be (low, high) with 0 <= low <= high <= 1.")
        if self.random_step and self.grad_steps:
            raise ValueError("random_step takes gradient at one step per row, so grad_steps must be 0 with it.")

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """One output per row by the K-step sampler with its random η; the trajectory holds `x0`. No gradient."""
        return self._sample_final(prompts, self.draw(prompts, rng), self._levels(), self.guidance_scale)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One output per row by the deterministic sampler (η = 0) with `eval_steps`. No gradient."""
        scale = self.guidance_scale if self.eval_guidance_scale is None else self.eval_guidance_scale
        start = {"noise": randn((len(prompts), *self.adapter.latent_shape), rng, self.adapter.device)}
        return self._sample_final(prompts, start, self._levels(self.eval_steps), scale)

    def draw(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Probe:
        """All the randomness of `rsample` and `guidance_direction`, every entry (B, ...).

        `noise` (B, *latent); `renoise` (B, K − 1, *latent) and `eta` (B, K − 1) between steps; `step` (B,) for R0+;
        `guide_noise` (B, *latent) and `guide_level` (B,) for the guidance direction.
        """
        rows, shape, device = len(prompts), tuple(self.adapter.latent_shape), self.adapter.device
        between = len(self._levels()) - 2
        (low, high), (least, most) = self._eta_range, self.guide_levels
        return {
            "noise": randn((rows, *shape), rng, device),
            "renoise": randn((rows, between, *shape), rng, device),
            "eta": low + (high - low) * rand((rows, between), rng, device),
            "step": (rand((rows,), rng, device) * (between + 1)).long().clamp(max=between),
            "guide_noise": randn((rows, *shape), rng, device),
            "guide_level": least + (most - least) * rand((rows,), rng, device),
        }

    def rsample(self, prompts: Sequence[Prompt], draws: Probe) -> Rollout:
        """Outputs with gradient to the weights; `trajectory["x0"]` holds the final latents, with gradient."""
        condition, levels = self.adapter.encode(prompts), self._levels()
        if self.random_step:
            x0 = self._clean_at_random_step(condition, draws, levels)
        else:
            x0 = self._clean(condition, draws, levels, self.guidance_scale)
        check_finite(x0)
        output = self._checkpointed(self.adapter.decode, x0)
        return Rollout(
            prompts=list(prompts),
            output=in_range(output, self.saturation),
            group=groups(prompts).to(x0.device),
            trajectory={"x0": x0},
        )

    @without_gradient
    def guidance_direction(
        self, x0: Float[Tensor, " B *latent"], prompts: Sequence[Prompt], draws: Probe
    ) -> Float[Tensor, " B *latent"]:
        """Where the frozen reference would move latents to fit their prompts, (B, *latent).

        R0's implicit reward is the classifier-free guidance of the pretrained model; its gradient with respect to the
        output is x̂0(prompt) − x̂0(∅) at a random level of noise (at a level t of a flow, −t (v(c) − v(∅))), with no
        gradient through the reference. Reconstruction: the paper states the reward, not its weight over levels; ours
        is 1 in x̂0-space, and callers normalise.

        With `guide_scale` w it is the step to what the guided reference would make of the noised output, x̂0(∅) +
        w (x̂0(prompt) − x̂0(∅)) − x0: score distillation (Poole et al. 2022, eq. 3, in x̂0-space). That also holds
        outputs among what the reference makes, where rewards would leave it.
        """
        level = self.adapter.level(draws["guide_level"]).to(x0.device)
        x = like(level.alpha, x0) * x0 + like(level.sigma, x0) * draws["guide_noise"].to(x0)
        with self.reference():
            both = both_predictions(self.adapter, x, level.times, self.adapter.encode(prompts))
        kind = self.adapter.prediction
        prompted, unprompted = (clean_and_noise(kind, x, p, level.alpha, level.sigma)[0] for p in both)
        if self.guide_scale is None:
            return prompted - unprompted
        return unprompted + self.guide_scale * (prompted - unprompted) - x0

    @property
    def _eta_range(self) -> tuple[float, float]:
        return self.eta if isinstance(self.eta, tuple) else (self.eta, self.eta)

    def _levels(self, steps: int | None = None) -> NoiseLevel:
        return self.adapter.schedule(steps or self.num_inference_steps).to(self.adapter.device)

    @without_gradient
    def _sample_final(self, prompts: Sequence[Prompt], draws: Probe, levels: NoiseLevel, scale: float) -> Rollout:
        parts = []
        for part in micro_batches(len(prompts), self.rows):
            noise = {key: value[part] for key, value in draws.items()}
            parts.append(self._clean(self.adapter.encode(prompts[part]), noise, levels, scale))
        x0 = torch.cat(parts)
        output = decode_in_range(self.adapter, x0, self.rows)
        return Rollout(prompts=list(prompts), output=output, group=groups(prompts).to(x0.device), trajectory={"x0": x0})

    def _clean(self, condition: Condition, draws: Probe, levels: NoiseLevel, scale: float) -> Tensor:
        """The last step's clean prediction; the last `grad_steps` steps carry gradient."""
        predict = guided(self.adapter, condition, scale, self.detach_unconditional)
        x, last = draws["noise"], len(levels) - 2
        first = last + 1 - (self.grad_steps or last + 1)
        for k in range(last + 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and k >= first):
                index = torch.full((len(x),), k, device=x.device)
                clean, epsilon = self._denoise(predict, x, levels[index])
                if k < last:
                    x = self._renoise(clean, epsilon, draws, k, levels)
        return clean

    def _clean_at_random_step(self, condition: Condition, draws: Probe, levels: NoiseLevel) -> Tensor:
        """R0+: each row goes to its step j without gradient; the clean prediction there is the output."""
        x, stop = draws["noise"], draws["step"]
        with torch.no_grad():
            for k in range(int(stop.max())):
                going = (stop > k).nonzero()[:, 0]
                noise = {key: value[going] for key, value in draws.items()}
                here = {key: value[going.to(value.device)] for key, value in condition.items()}
                predict = guided(self.adapter, here, self.guidance_scale)
                clean, epsilon = self._denoise(predict, x[going], levels[torch.full_like(going, k)])
                x = x.index_copy(0, going, self._renoise(clean, epsilon, noise, k, levels))
        predict = guided(self.adapter, condition, self.guidance_scale, self.detach_unconditional)
        return self._denoise(predict, x, levels[stop])[0]

    def _denoise(self, predict: Predict, x: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        prediction = self._checkpointed(predict, x, level.times)
        return clean_and_noise(self.adapter.prediction, x, prediction, level.alpha, level.sigma)

    def _renoise(self, clean: Tensor, epsilon: Tensor, draws: Probe, k: int, levels: NoiseLevel) -> Tensor:
        index = torch.full((len(clean),), k, device=clean.device)
        here, after = levels[index], levels[index + 1]
        if "eta" not in draws:
            return renoise(clean, epsilon, after.alpha, after.sigma, torch.zeros_like(after.sigma), None).next
        posterior = posterior_std(here.alpha, here.sigma, after.alpha, after.sigma)
        std = draws["eta"][:, k] * (after.sigma if self.spread == "resample" else posterior)
        return renoise(clean, epsilon, after.alpha, after.sigma, std, draws["renoise"][:, k]).next

    def _checkpointed(self, function: Callable[..., R], *inputs: Tensor) -> R:
        if self.checkpoint and torch.is_grad_enabled():
            result: R = torch.utils.checkpoint.checkpoint(function, *inputs, use_reentrant=False)
            return result
        return function(*inputs)


__all__ = ["FewStep"]
