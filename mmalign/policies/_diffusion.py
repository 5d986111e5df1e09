"""The diffusion policy: sampling, replay with exact step log-probs, and a surrogate density of a latent generator.

Everything but the step rule is here, once. Policies `flow` and `ddpm` are this one with their rules: which noise their
steps draw, and the options of that noise. The surrogate density of any output stands in `_surrogate.py`.

Fine-tuning as published trainers do it, by options of the density and of objective `sft`:

| trainer                                  | policy | options |
|------------------------------------------|--------|---------|
| text to image, ε and v (diffusers, kohya)| ddpm   | the defaults: weighting: plain, density_levels: uniform |
| … its `--snr_gamma 5`, ε and v           | ddpm   | weighting: min_snr, min_snr_gamma: 5 |
| kohya's `--scale_v_pred_loss_like_noise_pred` | ddpm | of v: weighting: const_eps |
| SD3's paper, FLUX (`logit_normal`)       | flow   | the defaults: weighting: const_v, density_levels: logit_normal |
| diffusers' SD3 scripts as they stand     | flow   | weighting: const_x0, density_levels: logit_normal |
| … `--weighting_scheme mode`              | flow   | weighting: const_x0, density_levels: mode, density_mode: 1.29 |
| … `--weighting_scheme cosmap`            | flow   | weighting: cosmap, density_levels: uniform |
| … `--weighting_scheme none` (FLUX)       | flow   | weighting: const_v, density_levels: uniform |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from mmalign.core.options import AtLeastOne, Count, NotNegative, Positive, at_least, one_of
from mmalign.core.protocols import Denoising, LatentAdapter, Prediction, Probe
from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, NoiseLevel, Prompt, Rollout, StepDist
from mmalign.core.unloaded import Unloaded
from mmalign.policies._base import LatentPolicy, encode_outputs, require_kind
from mmalign.policies._steps import StepRule
from mmalign.policies._surrogate import (
    OF_FLOWS,
    ErrorWeight,
    LevelDistribution,
    LevelDraw,
    Weighting,
    denoising,
    draw_probe,
    surrogate_log_prob,
)
from mmalign.policies._trajectory import Process, Store, Window, WindowKind, replay, sample_final, sample_trajectories

# What other programs call the options of policies of latents.
ALSO_CALLED = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "eval_num_steps": "eval_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sde_type": "sde",
    "sde_window_size": "window_size",
    "sde_window_range": "window_range",
}


@dataclass
class Diffusion(LatentPolicy, ABC):
    """A latent generator as a step, density and sampling policy, whatever its steps are.

    Args:
        adapter: a `LatentAdapter`; its schedule's last level is where sampling ends, as in its own pipeline.
        num_inference_steps: K of `sample`.
        guidance_scale: classifier-free guidance of `sample` and the replay; at most 1 is none.
        detach_unconditional: no gradient through the unconditional branch.
        eval_steps, eval_guidance_scale: of `generate`; None is those of `sample`.
        window: which steps are noisy and trained: "all", "first", "random", "progressive", "scattered" or
            "subset".
        window_size: how many steps that is, T of the rollout; 0 with "all".
        window_range: (start, end) of the steps to choose from, as fractions (values up to 1) or step indices.
        window_every, window_stride: "progressive" moves by `window_stride` steps every `window_every` calls of
            `sample`; the count is part of `state_dict`.
        window_decay, window_decay_after: "progressive" stays ceil(window_every · exp(-window_decay · max(0, l -
            window_decay_after))) calls where its first step is l; 0 stays `window_every` calls everywhere.
        residual_noise: also noisy: the last step where its variance is not 0, and steps that land near σ = 0 with more
            noise than what follows can remove (as Flow-GRPO's first code did). Rewards then judge noisy images.
        same_noise: rows of a group share the initial noise; steps before the first noisy one run once per group.
        weighting: what an error weighs in the surrogate density, see `_surrogate.py`: "plain" (1 on the error of what
            the network predicts: "const_eps" of ε, "const_v" of v and flows), "const_v", "const_eps", "const_x0",
            "min_snr", "elbo", and for flows "sigma_sqrt" and "cosmap".
        min_snr_gamma: γ of "min_snr".
        density_levels: the distribution of its levels of noise: "uniform", "logit_normal" or "mode".
        density_mean, density_std: of "logit_normal" before its sigmoid; a mean above 0 prefers noise.
        density_mode: the scale of "mode"; above 0 it prefers the middle of the schedule, below 0 its ends.
        density_shift: moves drawn levels towards noise (above 1), beyond the shift of the checkpoint's own schedule.
        rows: micro-batch of forwards without gradient, and of the replay; 0 is all rows at once. For a ratio of exactly
            1, train in chunks of the same number of rows.
        store: where recorded latents wait: on the adapter's device or in host memory.

    Raises:
        ValueError: an option out of range, an adapter of another prediction, or a window without steps.
    """

    adapter: Unloaded[LatentAdapter]
    _: KW_ONLY
    num_inference_steps: AtLeastOne = 10
    guidance_scale: NotNegative = 1.0
    detach_unconditional: bool = False
    eval_steps: AtLeastOne | None = None
    eval_guidance_scale: NotNegative | None = None
    window: WindowKind = "all"
    window_size: Count = 0
    window_range: tuple[float, float] = (0.0, 1.0)
    window_every: AtLeastOne = 25
    window_stride: AtLeastOne = 1
    window_decay: NotNegative = 0.0
    window_decay_after: Count = 13
    residual_noise: bool = False
    same_noise: bool = False
    weighting: Weighting = "const_v"
    min_snr_gamma: Positive = 5.0
    density_levels: LevelDraw = "logit_normal"
    density_mean: float = 0.0
    density_std: Positive = 1.0
    density_mode: float = 1.29
    density_shift: Positive = 1.0
    rows: Count = 0
    store: Store = "device"

    also_called: ClassVar[dict[str, str]] = ALSO_CALLED
    forward_per_step: ClassVar[bool] = True
    name: ClassVar[str]
    predictions: ClassVar[tuple[Prediction, ...]]  # of the adapters that its rule can step with
    other: ClassVar[str]  # the policy for the other adapters

    def __post_init__(self) -> None:
        require_kind(self.name, "latents", self.adapter)
        if self.adapter is not None and self.adapter.prediction not in self.predictions:
            raise ValueError(
                f"policy '{self.name}' needs an adapter that predicts {' or '.join(self.predictions)}, and this one "
                f"({type(self.adapter).__name__}) predicts {self.adapter.prediction}; use policy '{self.other}'."
            )
        one_of("weighting", self.weighting, Weighting)
        one_of("density_levels", self.density_levels, LevelDraw)
        one_of("store", self.store, Store)
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("eval_steps", self.eval_steps, 1)
        at_least("rows", self.rows, 0)
        if self.weighting in OF_FLOWS and "flow" not in self.predictions:
            raise ValueError(
                f"weighting {self.weighting} weighs levels of a rectified flow, which policy '{self.name}' has not; "
                "use const_eps, const_v or min_snr."
            )
        self._calls = 0
        self._levels = LevelDistribution(
            kind=self.density_levels,
            mean=self.density_mean,
            std=self.density_std,
            mode=self.density_mode,
            shift=self.density_shift,
        )
        self._window = Window(
            kind=self.window,
            size=self.window_size,
            range=self.window_range,
            every=self.window_every,
            stride=self.window_stride,
            residual_noise=self.residual_noise,
            decay=self.window_decay,
            decay_after=self.window_decay_after,
        )
        if self.draws_noise:  # the schedule is not loaded yet; `sample` checks the window against it
            self._window.fits(self.num_inference_steps)

    @property
    @abstractmethod
    def draws_noise(self) -> bool:
        """Do the steps of `sample` draw noise? Without it samples are deterministic and no step is recorded."""

    @abstractmethod
    def rule_over(self, levels: NoiseLevel) -> StepRule:
        """Return the step rule along a schedule of K + 1 levels."""

    def step_rule(self, steps: int | None = None) -> StepRule:
        """Return the step rule along the adapter's schedule of `steps` steps; None is `num_inference_steps`."""
        return self.rule_over(self.adapter.schedule(steps or self.num_inference_steps).to(self.adapter.device))

    def state_dict(self) -> dict[str, int]:
        """Return {"calls": how often `sample` was called}, by which the progressive window stands where it does."""
        return {"calls": self._calls}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Set the progressive window to where it stood when `state_dict` gave `state`."""
        self._calls = int(state["calls"])

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """Sample one output per row by noisy steps; the trajectory holds `x0` (B, *latent) and what the replay needs.

        That is `x`, `next` (B, T, *latent), the latents before and after each recorded step, and `step` (B, T), its
        index.
        """
        process, window = self._process(), self._window
        rule = process.rule
        candidates = window.steps(rule.std().tolist(), rule.levels.sigma[1:].tolist()) if self.draws_noise else []
        plan = window.draw(candidates, self._calls, len(prompts), rng)
        self._calls += 1
        return sample_trajectories(process, prompts, plan, rng, self.rows, self.same_noise, self.store)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """Sample one output per row by `eval_steps` deterministic steps; the trajectory holds `x0` (B, *latent)."""
        scale = self.guidance_scale if self.eval_guidance_scale is None else self.eval_guidance_scale
        return sample_final(self._process(self.eval_steps, scale), prompts, rng, self.rows)

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        """Return the Gaussians of the recorded steps under the current weights, (B, T, *latent), with gradient."""
        return replay(self._process(), rollout, steps, self.rows)

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """Return `step_dist(...).log_prob`, (B, T) in nats, with gradient."""
        return self.step_dist(rollout, steps).log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Tensor | Audio) -> Rollout:
        """Encode B images (B, 3, H, W) in [0, 1] or sounds in [-1, 1] as a rollout that `log_prob` accepts."""
        return encode_outputs(self.adapter, prompts, outputs, self.rows)

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Draw `draws` noise samples and levels per row for `log_prob`, shared by everything that is compared."""
        return draw_probe(self.adapter, rollout, draws, self._levels, rng)

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """Return denoising-error terms, T = draws, that sum to an estimate of log p up to a constant; with gradient.

        Rows where `probe["unconditional"]` (B,) is True are taken without their prompt.
        """
        weight = ErrorWeight(kind=self.weighting, gamma=self.min_snr_gamma)
        return surrogate_log_prob(self.adapter, rollout, probe, weight, self.rows)

    def denoising(self, rollout: Rollout, probe: Probe) -> Denoising:
        """Return the prediction at every draw of the probe, with gradient, its target and what its error weighs."""
        weight = ErrorWeight(kind=self.weighting, gamma=self.min_snr_gamma)
        return denoising(self.adapter, rollout, probe, weight, self.rows)

    def _process(self, steps: int | None = None, guidance_scale: float | None = None) -> Process:
        return Process(
            adapter=self.adapter,
            rule=self.step_rule(steps),
            guidance_scale=self.guidance_scale if guidance_scale is None else guidance_scale,
            detach_unconditional=self.detach_unconditional,
        )
