"""What the parts of a run hand to one another: conditions, inputs, shared noise, metrics, averages over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from jaxtyping import Float

from mmalign.core.metrics import Average
from mmalign.core.tensor import Tensor

Condition = dict[str, Tensor]  # what `encode` makes of prompts: every entry (B, ...)
Inputs = Mapping[str, Tensor]  # what a `TokenAdapter` makes of one prompt, unpadded; `input_ids` (L,) is among it
Probe = dict[str, Tensor]  # a shared sample of noise and times, drawn once: every entry (B, ...)
Metrics = Mapping[str, Average | Tensor]  # by the names of `core.metrics.METRICS`; detached
Mean = Callable[[Tensor], Tensor]  # averages a tensor over ranks, entry by entry
Gather = Callable[[Any], list[Any]]  # what every rank holds, in their order
Accelerator = Any  # `accelerate.Accelerator`, or None: that package has no types, and the maths does not import it
Foreign = Any  # an object of a package without types (a tracker, its writer), of which names are called as it documents
Prediction = Literal["flow", "epsilon", "v"]


class Denoising(NamedTuple):
    """What a network says at T draws of noise, what is right there, and what the squared error weighs.

    A squared error e (a sum over the latent) costs w e / 2 nats; w is the density's weight over the number of draws.
    """

    prediction: Float[Tensor, "B T *latent"]
    target: Float[Tensor, "B T *latent"]
    weight: Float[Tensor, "B T"]


def one_process(total: Tensor) -> Tensor:
    """Return the `Mean` of a process that has no others beside it."""
    return total


def one_alone(value: object) -> list[Any]:
    """Return the `Gather` of a process that has no others beside it."""
    return [value]


__all__ = [
    "Accelerator",
    "Condition",
    "Denoising",
    "Foreign",
    "Gather",
    "Inputs",
    "Mean",
    "Metrics",
    "Prediction",
    "Probe",
    "one_alone",
    "one_process",
]
