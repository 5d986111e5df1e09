"""Diffusion models that predict ε or v: DDIM with η and exact step log-probs, replay, and a surrogate density.

| paper                     | options |
|---------------------------|---------|
| DDPO (2305.13301)         | eta: 1, num_inference_steps: 50, guidance_scale: 5 |
| SPO's sampler (2406.04314)| eta: 1, num_inference_steps: 20 |
| Diffusion-DPO (2311.12908)| weighting: const_eps, eta: 0 (plain DDIM samples; nothing is recorded) |

Windows (MixGRPO, DanceGRPO's subset) work as for flows. Samples are never clipped: a clipped step is not Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float

from mmalign.core.options import AtLeastOne, Count, NotNegative
from mmalign.core.protocols import Probe
from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt, Rollout, StepDist
from mmalign.policies._density import LevelDraw, Weighting, draw_probe, surrogate_log_prob
from mmalign.policies._options import ALSO_CALLED, at_least, one_of, predicts, within
from mmalign.policies._prediction import clean_and_noise
from mmalign.policies._rollout import observed
from mmalign.policies._steps import Step, posterior_std, renoise
from mmalign.policies._trajectory import Process, Store, replay, sample_ends, sample_paths
from mmalign.policies._window import Window, WindowKind


@dataclass
class Ddpm:
    """A diffusion generator as a step, density and sampling policy; the adapter predicts "epsilon" or "v".

    Args:
        adapter: a `LatentAdapter`; its schedule's last level is where sampling ends, as in its own pipeline.
        eta: DDIM's η in [0, 1]; 1 is ancestral sampling, 0 samples deterministically and records no steps.
        num_inference_steps: K of `sample`.
        guidance_scale: classifier-free guidance of `sample` and the replay; at most 1 is none.
        detach_unconditional: no gradient through the unconditional branch.
        eval_steps, eval_guidance_scale: of `generate` (η = 0); None is those of `sample`.
        window: which steps are noisy and trained: "all", "first", "random", "progressive" or "subset".
        window_size: how many steps that is, T of the rollout; 0 with "all".
        window_range: (start, end) of the steps to choose from, as fractions (values up to 1) or step indices.
        window_every, window_stride: "progressive" moves by `window_stride` steps every `window_every` calls of
            `sample`; the count is part of `state_dict`.
        window_decay, window_decay_after: "progressive" stays ceil(window_every · exp(-window_decay · max(0, l -
            window_decay_after))) calls where its first step is l; 0 stays `window_every` calls everywhere.
        residual_noise: also let the last step draw noise, where its variance is not 0.
        same_noise: rows of a group share the initial noise; steps before the first noisy one run once per group.
        weighting, density_levels: weights and distribution of levels of the surrogate density, see `_density.py`.
        rows: micro-batch of forwards without gradient, and of the replay; 0 is all rows at once. For a ratio of exactly
            1, train in chunks of the same number of rows.
        store: where recorded latents wait: on the adapter's device or in host memory.

    Raises:
        ValueError: an option out of range, an adapter that predicts "flow", or a window without steps.
    """

    adapter: Any
    eta: NotNegative = 1.0
    num_inference_steps: AtLeastOne = 50
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
    weighting: Weighting = "const_eps"
    density_levels: LevelDraw = "uniform"
    rows: Count = 0
    store: Store = "device"

    also_called: ClassVar[dict[str, str]] = ALSO_CALLED
    forward_per_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        predicts("ddpm", self.adapter, ["epsilon", "v"], "flow")
        one_of("weighting", self.weighting, Weighting)
        one_of("density_levels", self.density_levels, LevelDraw)
        one_of("store", self.store, Store)
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("eval_steps", self.eval_steps, 1)
        at_least("rows", self.rows, 0)
        within("eta", self.eta, 0, 1)
        self._calls = 0
        window = self._window()
        if self.eta != 0:  # the schedule is not loaded yet; `sample` checks the window against it
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
        """One output per row by DDIM-η; the trajectory holds `x0`, and `x`, `next` (B, T, *latent), `step` (B, T)."""
        process = self._process()
        plan = self._window().draw(self._candidates(process), self._calls, len(prompts), rng)
        self._calls += 1
        return sample_paths(process, prompts, plan, rng, self.rows, self.same_noise, self.store)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One output per row by DDIM (η = 0) with `eval_steps`; the trajectory holds `x0`."""
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

        def noisy(x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None) -> Step:
            return self._ddim(levels, x, index, prediction, noise, self.eta)

        def plain(x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None) -> Step:
            return self._ddim(levels, x, index, prediction, None, 0.0)

        return Process(self.adapter, levels, noisy, plain, scale, self.detach_unconditional)

    def _ddim(
        self, levels: NoiseLevel, x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None, eta: float
    ) -> Step:
        here, after = levels[index], levels[index + 1]
        clean, epsilon = clean_and_noise(self.adapter.prediction, x, prediction, here.alpha, here.sigma)
        std = eta * posterior_std(here.alpha, here.sigma, after.alpha, after.sigma)
        return renoise(clean, epsilon, after.alpha, after.sigma, std, noise)

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
        if self.eta == 0:
            return []
        return self._window().steps(process.step_std().tolist(), process.levels.sigma[1:].tolist())


__all__ = ["Ddpm"]
