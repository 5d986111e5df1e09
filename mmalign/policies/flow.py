"""Rectified flows: SDE sampling with exact step log-probs, replay, and a flow-matching surrogate density.

Recipes are options, not classes:

| paper           | options |
|-----------------|---------|
| Flow-GRPO (2505.05470)  | sde: flow_sde, noise_level: 0.7 |
| Flow-GRPO-Fast  | window: random, window_size: 2, window_range: [0, 0.5], same_noise: true |
| Flow-CPS        | sde: cps, noise_level: 0.8 |
| DanceGRPO (2505.07818)  | sde: dance, noise_level: 0.3, same_noise: true, window: subset, window_size: 10 (of 16) |
| MixGRPO (2507.21802)    | sde: flow_sde, window: progressive, window_size: 4, num_inference_steps: 25 |
| … its `exp_decay`       | the same, window_decay: 0.1 |
| four-step students      | num_inference_steps: 4 |
| DPO, DRAGON, NFT        | noise_level: 0 (plain ODE samples; nothing is recorded) |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.core.options import AtLeastOne, Count, NotNegative
from mmalign.core.protocols import Probe
from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, StepDist
from mmalign.policies._density import LevelDraw, Weighting, draw_probe, surrogate_log_prob
from mmalign.policies._options import ALSO_CALLED, at_least, one_of, predicts, within
from mmalign.policies._rollout import observed
from mmalign.policies._steps import Step, cps, dance, flow_sde, ode
from mmalign.policies._trajectory import Process, Store, replay, sample_ends, sample_paths
from mmalign.policies._window import Window, WindowKind

Sde = Literal["flow_sde", "cps", "dance"]

_NOISE_LEVEL = {"flow_sde": 0.7, "cps": 0.8, "dance": 0.3}  # the published values


@dataclass
class Flow:
    """A rectified-flow generator as a step, density and sampling policy; the adapter predicts "flow".

    Args:
        adapter: a `LatentAdapter`.
        sde: how noisy steps draw their noise. "cps" leaves no residual noise at any number of steps but narrows the
            distribution; "flow_sde" and "dance" keep the marginals as steps → ∞ and leave residual noise at few steps.
        noise_level: a of Flow-GRPO (≥ 0), η of CPS (in [0, 1]) or of DanceGRPO (≥ 0); None is the published value
            (0.7, 0.8, 0.3). 0 samples by the ODE and records no steps.
        num_inference_steps: K of `sample`.
        guidance_scale: classifier-free guidance of `sample` and the replay; at most 1 is none.
        detach_unconditional: no gradient through the unconditional branch.
        eval_steps, eval_guidance_scale: of `generate`; None is those of `sample`.
        window: which steps are noisy and trained: "all", "first", "random", "progressive" or "subset".
        window_size: how many steps that is, T of the rollout; 0 with "all".
        window_range: (start, end) of the steps to choose from, as fractions (values up to 1) or step indices.
        window_every, window_stride: "progressive" moves by `window_stride` steps every `window_every` calls of
            `sample`; the count is part of `state_dict`.
        window_decay, window_decay_after: "progressive" stays ceil(window_every · exp(-window_decay · max(0, l -
            window_decay_after))) calls where its first step is l; 0 stays `window_every` calls everywhere.
        residual_noise: also noisy: the last step, and steps that land near σ = 0 with more noise than what follows can
            remove (as Flow-GRPO's first code did). Rewards then judge noisy images.
        same_noise: rows of a group share the initial noise; steps before the first noisy one run once per group.
        weighting, density_levels: weights and distribution of levels of the surrogate density, see `_density.py`.
        rows: micro-batch of forwards without gradient, and of the replay; 0 is all rows at once. For a ratio of exactly
            1, train in chunks of the same number of rows.
        store: where recorded latents wait: on the adapter's device or in host memory.

    Raises:
        ValueError: an option out of range, an adapter that does not predict "flow", or a window without steps.
    """

    adapter: Any
    sde: Sde = "cps"
    noise_level: NotNegative | None = None
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
    density_levels: LevelDraw = "logit_normal"
    rows: Count = 0
    store: Store = "device"

    also_called: ClassVar[dict[str, str]] = ALSO_CALLED
    forward_per_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        predicts("flow", self.adapter, ["flow"], "ddpm")
        one_of("sde", self.sde, Sde)
        one_of("weighting", self.weighting, Weighting)
        one_of("density_levels", self.density_levels, LevelDraw)
        one_of("store", self.store, Store)
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("eval_steps", self.eval_steps, 1)
        at_least("rows", self.rows, 0)
        within("noise_level", self.noise_level, 0, 1 if self.sde == "cps" else math.inf)
        self._calls = 0
        window = self._window()
        if self.noise_level != 0:  # the schedule is not loaded yet; `sample` checks the window against it
            window.fits(self.num_inference_steps)

    @property
    def modality(self) -> Modality:
        """The adapter's."""
        return self.adapter.modality  # type: ignore[no-any-return]

    @property
    def module(self) -> torch.nn.Module:
        """The adapter's trainable part."""
        return self.adapter.module  # type: ignore[no-any-return]

    @property
    def event_size(self) -> int:
        """Latent elements of one output: what one log-prob sums over."""
        return math.prod(self.adapter.latent_shape)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it the policy is the one it started from."""
        return self.adapter.reference()  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, int]:
        """How often `sample` was called: where the progressive window stands."""
        return {"calls": self._calls}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore `state_dict`."""
        self._calls = int(state["calls"])

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """One output per row by the SDE; the trajectory holds `x0`, and `x`, `next` (B, T, *latent), `step` (B, T)."""
        process = self._process()
        plan = self._window().draw(self._candidates(process), self._calls, len(prompts), rng)
        self._calls += 1
        return sample_paths(process, prompts, plan, rng, self.rows, self.same_noise, self.store)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One output per row by the ODE with `eval_steps`; the trajectory holds `x0`."""
        scale = self.guidance_scale if self.eval_guidance_scale is None else self.eval_guidance_scale
        return sample_ends(self._process(self.eval_steps, scale), prompts, rng, self.rows)

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        """The Gaussians of the recorded steps under the current weights, with gradient."""
        return replay(self._process(), rollout, steps, self.rows)

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """`step_dist(...).log_prob`."""
        return self.step_dist(rollout, steps).log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        """Given outputs as a rollout that `log_prob` accepts."""
        return observed(self.adapter, prompts, outputs, self.rows)

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Noise and levels for `log_prob`, to be shared by everything that is compared."""
        return draw_probe(self.adapter, rollout, draws, self.density_levels, rng)

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """Denoising-error terms, T = draws, that sum to an estimate of log p up to a constant; with gradient."""
        return surrogate_log_prob(self.adapter, rollout, probe, self.weighting, self.rows)

    def _process(self, steps: int | None = None, scale: float | None = None) -> Process:
        levels = self.adapter.schedule(steps or self.num_inference_steps).to(self.adapter.device)
        scale = self.guidance_scale if scale is None else scale
        sigma = levels.sigma
        noise_level = _NOISE_LEVEL[self.sde] if self.noise_level is None else self.noise_level
        second = sigma[1]
        steppers = {
            "flow_sde": partial(flow_sde, noise_level=noise_level, second=second),
            "cps": partial(cps, noise_level=noise_level),
            "dance": partial(dance, noise_level=noise_level),
        }

        def noisy(x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None) -> Step:
            return steppers[self.sde](x, sigma[index], sigma[index + 1], prediction, noise)

        def plain(x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None) -> Step:
            return ode(x, sigma[index], sigma[index + 1], prediction)

        return Process(self.adapter, levels, noisy, plain, scale, self.detach_unconditional, sigma[:-1] - sigma[1:])

    def _window(self) -> Window:
        return Window(
            self.window,
            self.window_size,
            self.window_range,
            self.window_every,
            self.window_stride,
            self.residual_noise,
            self.window_decay,
            self.window_decay_after,
        )

    def _candidates(self, process: Process) -> list[int]:
        if self.noise_level == 0:
            return []
        return self._window().steps(process.step_std().tolist(), process.levels.sigma[1:].tolist())


__all__ = ["Flow"]
