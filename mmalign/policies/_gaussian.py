"""Isotropic Gaussians over one event per row: log-prob and KL, summed over event dimensions, in float32 or better."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor


def normal_log_prob(
    value: Float[Tensor, " B *event"], mean: Float[Tensor, " B *event"], std: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """log N(value; mean, std² I) per row: a sum over the event, never a mean; std > 0.

    Low-precision inputs are lifted to float32 first: squares of bfloat16 differences lose the ratio.
    """
    value, mean, std = _lift(value), _lift(mean), _lift(std)
    size = value[0].numel()
    z = (value - mean).flatten(1) / std[:, None]
    return -0.5 * z.square().sum(1) - size * (std.log() + 0.5 * math.log(2 * math.pi))


def normal_kl(
    mean: Float[Tensor, " B *event"],
    std: Float[Tensor, " B"],
    other_mean: Float[Tensor, " B *event"],
    other_std: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """KL(N(mean, std² I) ‖ N(other_mean, other_std² I)) per row, in nats, summed over the event.

    With equal std it is ‖mean − other_mean‖² / (2 std²): the true per-step KL of a sampler. Flow-GRPO's code leaves the
    step length |dt| out of std², which makes its number |dt| times this one.
    """
    mean, std, other_mean, other_std = _lift(mean), _lift(std), _lift(other_mean), _lift(other_std)
    size = mean[0].numel()
    distance = (mean - other_mean).flatten(1).square().sum(1)
    ratio = std / other_std
    return distance / (2 * other_std.square()) + size * (0.5 * (ratio.square() - 1) - ratio.log())


def _lift(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
