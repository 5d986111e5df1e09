"""Noise levels of a pipeline, read from its scheduler's configuration: what a diffusers family is mixed with.

class MyImages(FlowLevels, ImageAdapter): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmalign.adapters.loading.diffusers_adapter import Loaded
from mmalign.adapters.loading.options import default_device
from mmalign.adapters.loading.schedule import (
    ddim_level,
    ddim_prediction,
    ddim_schedule,
    dynamic_shift,
    flow_level,
    flow_schedule,
)
from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Device, Tensor
from mmalign.core.types import NoiseLevel


class FlowLevels:
    """Levels of a rectified flow, whose network predicts the velocity ε - x_0."""

    prediction: ClassVar[Prediction] = "flow"

    device: Device | str | None
    loaded: Loaded

    @property
    def scheduler(self) -> Any:
        """The flow-matching scheduler that levels are read from."""
        return self.loaded.pipeline.scheduler

    def image_tokens(self) -> int | None:
        """By how many tokens the pipeline shifts its levels; None where it does not."""
        return None

    def sigmas(self, num_inference_steps: int) -> Sequence[float] | None:
        """The K unshifted levels of a pipeline that passes its own; None for the scheduler's."""
        return None

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas, shifted as its scheduler says."""
        tokens = self.image_tokens()
        shift = None if tokens is None else dynamic_shift(self.scheduler, tokens)
        sigmas = self.sigmas(num_inference_steps)
        return flow_schedule(self.scheduler, num_inference_steps, default_device(self.device), shift, sigmas)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, shifted as the scheduler's config says; unshifted where that depends on resolution."""
        return flow_level(self.scheduler, u)


class DiffusionLevels:
    """DDIM's levels for the scheduler's config, whichever scheduler that is; x_0 is never clipped."""

    prediction: Prediction = "epsilon"  # or v: loading reads which

    device: Device | str | None
    loaded: Loaded

    def inspect(self, pipe: Any) -> None:
        """Read from the scheduler what the network predicts; CapabilityError for anything but ε and v."""
        self.prediction = ddim_prediction(pipe.scheduler)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """DDIM's levels for the scheduler's config."""
        return ddim_schedule(self.loaded.pipeline.scheduler, num_inference_steps, default_device(self.device))

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u."""
        return ddim_level(self.loaded.pipeline.scheduler, u)
