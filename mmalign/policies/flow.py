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

What the three kinds of noisy steps compute stands in `_steps.py`; all else of the policy in `_diffusion.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.options import NotNegative, one_of, within
from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel, Rollout
from mmalign.policies._diffusion import Diffusion
from mmalign.policies._steps import Step, StepRule, cps, dance, flow_sde, ode

Sde = Literal["flow_sde", "cps", "dance"]


@dataclass(frozen=True, kw_only=True)
class OdeSteps(StepRule):
    """Steps of a flow, plain ones by its ODE; subclasses say what the noisy ones draw at `noise_level`."""

    noise_level: float
    published: ClassVar[float]  # the noise level of the rule's paper

    @property
    def dt(self) -> Float[Tensor, " K"]:
        """The flow time t - t′ > 0 that each of the K steps covers; all of them add up to at most 1."""
        return self.levels.sigma[:-1] - self.levels.sigma[1:]

    @property
    def mean_slope(self) -> Float[Tensor, " K"]:
        """∂mean/∂v of each noisy step, below 0: what the mean is at x = 0, v = 1, for it is linear in x and v."""
        index = torch.arange(self.steps, device=self.levels.sigma.device)
        zeros = torch.zeros(self.steps, 1, device=index.device, dtype=self.levels.sigma.dtype)
        return self.noisy(zeros, index, torch.ones_like(zeros), None).mean[:, 0]

    def plain(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor) -> Step:
        """An Euler step of the ODE: x + (t′ - t) v for rows x (B, *event), std 0; no noise is drawn."""
        return ode(x, *self._ends(index), prediction)

    def _ends(self, index: Int[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(t, t′) of steps `index`."""
        return self.levels.sigma[index], self.levels.sigma[index + 1]


class FlowSdeSteps(OdeSteps):
    """Flow-GRPO: the reverse SDE with σ_t = a √(t / (1 − t)); a ≥ 0 is the noise level."""

    published = 0.7

    def noisy(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor, noise: Tensor | None) -> Step:
        """An Euler-Maruyama step of the SDE for rows x (B, *event); `noise` is N(0, 1), None gives the mean."""
        second = self.levels.sigma[1]
        return flow_sde(x, *self._ends(index), prediction, noise, noise_level=self.noise_level, second=second)


class CpsSteps(OdeSteps):
    """Coefficients-Preserving Sampling: std t′ sin(η π / 2); η in [0, 1] is the noise level."""

    published = 0.8

    def noisy(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor, noise: Tensor | None) -> Step:
        """A step that replaces part of the predicted noise by `noise` (B, *event), N(0, 1); None gives the mean."""
        return cps(x, *self._ends(index), prediction, noise, noise_level=self.noise_level)


class DanceSteps(OdeSteps):
    """DanceGRPO: the reverse SDE with a constant σ_t = η; η ≥ 0 is the noise level."""

    published = 0.3

    def noisy(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor, noise: Tensor | None) -> Step:
        """An Euler-Maruyama step of the SDE for rows x (B, *event); `noise` is N(0, 1), None gives the mean."""
        return dance(x, *self._ends(index), prediction, noise, noise_level=self.noise_level)


RULES: dict[Sde, type[OdeSteps]] = {"flow_sde": FlowSdeSteps, "cps": CpsSteps, "dance": DanceSteps}


@dataclass(kw_only=True)
class Flow(Diffusion):
    """A rectified-flow generator as a step, density and sampling policy; the adapter predicts "flow".

    Args:
        sde: how noisy steps draw their noise. "cps" leaves no residual noise at any number of steps but narrows the
            distribution; "flow_sde" and "dance" keep the marginals as steps → ∞ and leave residual noise at few steps.
        noise_level: a of Flow-GRPO (≥ 0), η of CPS (in [0, 1]) or of DanceGRPO (≥ 0); None is the published value
            (0.7, 0.8, 0.3). 0 samples by the ODE and records no steps.

    All other options are those of `Diffusion`.

    Raises:
        ValueError: an option out of range, an adapter that does not predict "flow", or a window without steps.
    """

    sde: Sde = "cps"
    noise_level: NotNegative | None = None

    name: ClassVar[str] = "flow"
    predictions: ClassVar[tuple[Prediction, ...]] = ("flow",)
    other: ClassVar[str] = "ddpm"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("sde", self.sde, Sde)
        within("noise_level", self.noise_level, 0, 1 if self.sde == "cps" else math.inf)

    @property
    def draws_noise(self) -> bool:
        """Is the noise level other than 0? At 0 every step follows the ODE, and none is recorded."""
        return self.noise_level != 0

    def rule_over(self, levels: NoiseLevel) -> OdeSteps:
        """The steps of `sde` along K + 1 levels from noise to data, at `noise_level` or (None) the published one."""
        rule = RULES[self.sde]
        return rule(levels=levels, noise_level=rule.published if self.noise_level is None else self.noise_level)

    def mean_slope(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """∂mean/∂v of the recorded steps in `steps`, (B, T), below 0: steps go against the velocity."""
        rule = self.rule_over(self.adapter.schedule(self.num_inference_steps).to(self.adapter.device))
        return rule.mean_slope[rollout.trajectory["step"][:, steps].to(self.adapter.device)]


__all__ = ["Flow"]
