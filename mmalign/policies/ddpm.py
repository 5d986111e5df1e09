"""Diffusion models that predict ε or v: DDIM with η and exact step log-probs, replay, and a surrogate density.

| paper                     | options |
|---------------------------|---------|
| DDPO (2305.13301)         | eta: 1, num_inference_steps: 50, guidance_scale: 5 |
| SPO's sampler (2406.04314)| eta: 1, num_inference_steps: 20 |
| Diffusion-DPO (2311.12908)| weighting: plain, eta: 0 (plain DDIM samples; nothing is recorded) |

Windows (MixGRPO, DanceGRPO's subset) work as for flows. Samples are never clipped: a clipped step is not Gaussian. All
but the step rule stands in `_diffusion.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int

from mmalign.core.options import AtLeastOne, NotNegative, within
from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel
from mmalign.policies._diffusion import Diffusion
from mmalign.policies._steps import Step, StepRule, clean_and_noise, posterior_std, renoise
from mmalign.policies._surrogate import LevelDraw, Weighting


@dataclass(frozen=True, kw_only=True)
class DdimSteps(StepRule):
    """DDIM: `eta` times the posterior's std of fresh noise at each noisy step, none at a plain one."""

    eta: float
    prediction: Prediction

    def noisy(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor, noise: Tensor | None) -> Step:
        """A step for rows x (B, *event) with std η times the posterior's; `noise` is N(0, 1), None gives the mean."""
        return self._step(x, index, prediction, noise, self.eta)

    def plain(self, x: Tensor, index: Int[Tensor, " B"], prediction: Tensor) -> Step:
        """DDIM's deterministic step for rows x (B, *event): η = 0, std 0."""
        return self._step(x, index, prediction, None, 0.0)

    def _step(self, x: Tensor, index: Tensor, prediction: Tensor, noise: Tensor | None, eta: float) -> Step:
        here, after = self.levels[index], self.levels[index + 1]
        clean, epsilon = clean_and_noise(self.prediction, x, prediction, here.alpha, here.sigma)
        std = eta * posterior_std(here.alpha, here.sigma, after.alpha, after.sigma)
        return renoise(clean, epsilon, after.alpha, after.sigma, std, noise)


@dataclass(kw_only=True)
class Ddpm(Diffusion):
    """A diffusion generator as a step, density and sampling policy; the adapter predicts "epsilon" or "v".

    Args:
        eta: DDIM's η in [0, 1]; 1 is ancestral sampling, 0 samples deterministically and records no steps.

    All other options are those of `Diffusion`.

    Raises:
        ValueError: an option out of range, an adapter that predicts "flow", or a window without steps.
    """

    eta: NotNegative = 1.0
    num_inference_steps: AtLeastOne = 50
    weighting: Weighting = "plain"
    density_levels: LevelDraw = "uniform"

    name: ClassVar[str] = "ddpm"
    predictions: ClassVar[tuple[Prediction, ...]] = ("epsilon", "v")
    other: ClassVar[str] = "flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("eta", self.eta, 0, 1)

    @property
    def draws_noise(self) -> bool:
        """Is η above 0? At 0 sampling is deterministic, and no step is recorded."""
        return self.eta != 0

    def rule_over(self, levels: NoiseLevel) -> DdimSteps:
        """DDIM's steps along K + 1 levels from noise to data, for what the adapter predicts ("epsilon" or "v")."""
        return DdimSteps(levels=levels, eta=self.eta, prediction=self.adapter.prediction)


__all__ = ["Ddpm"]
