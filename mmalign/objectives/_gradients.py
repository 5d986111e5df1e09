"""Reward gradients with respect to outputs, computed and freed before the generator's own backward pass.

    surrogate = <sg(g), y>,   g = Σ_i w_i g_i / (‖g_i‖ + 1e-8),   g_i = ∂ r_i / ∂ y per sample

has the gradient of Σ_i w_i r_i / ‖g_i‖ (norms held fixed) with respect to whatever made y, whether the rewards were
evaluated together or one after the other: the graph of one reward is alive at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Rollout
from mmalign.objectives._scoring import scored

TINY = 1e-8


def media(output: Any) -> Tensor:
    """The tensor behind images (B, 3, H, W) or the samples (B, C, S) of `Audio`."""
    found = output.samples if isinstance(output, Audio) else output
    if not isinstance(found, Tensor):
        raise CapabilityError(f"r0 needs outputs that carry gradient (images or sound), got {type(output).__name__}.")
    return found


def output_gradient(reward: Any, rollout: Rollout) -> tuple[Tensor, Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """∂ reward / ∂ output per sample (0 for invalid rows), the values, and which rows are valid."""
    leaf = media(rollout.output).detach().requires_grad_()
    output = replace(rollout.output, samples=leaf) if isinstance(rollout.output, Audio) else leaf
    trajectory = {name: entry.detach() for name, entry in rollout.trajectory.items()}
    with torch.enable_grad():
        scores = scored(reward, replace(rollout, output=output, trajectory=trajectory))
        total = scores.value.where(scores.valid, 0.0).sum()
    if not total.requires_grad:
        if not scores.valid.any():  # nothing could be scored, which statuses and the breaker tell of
            return torch.zeros_like(leaf), scores.value.detach(), scores.valid
        raise CapabilityError(
            f"reward {type(reward).__name__} calls itself differentiable, and its value has no gradient to the output."
        )
    (gradient,) = torch.autograd.grad(total, leaf)
    # What failed may send NaN back even with slope 0; rows do not mix, so dropping the row drops all of it.
    gradient = gradient.where(scores.valid.reshape(-1, *[1] * (gradient.ndim - 1)), 0.0)
    return gradient, scores.value.detach(), scores.valid


def inward(gradient: Float[Tensor, " B *event"], output: Any) -> Float[Tensor, " B *event"]:
    """The gradient, 0 where it would push a saturated value (an image's at 0 or 1, a sound's at ±1) further out."""
    values, low = media(output).detach(), -1.0 if isinstance(output, Audio) else 0.0
    lost = ((values <= low) & (gradient < 0)) | ((values >= 1) & (gradient > 0))
    return gradient.masked_fill(lost, 0.0)


def sizes(gradient: Float[Tensor, " B *event"]) -> Float[Tensor, " B"]:
    """The norm of every sample's gradient, in float32 or better."""
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide.flatten(1).norm(dim=1)


def unit(gradient: Float[Tensor, " B *event"]) -> Float[Tensor, " B *event"]:
    """Every sample's gradient divided by its norm + 1e-8; a zero gradient stays zero."""
    norm = sizes(gradient) + TINY
    return gradient / norm.reshape(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)


def cosines(gradients: Mapping[str, Float[Tensor, " B *event"]]) -> dict[str, Float[Tensor, " B"]]:
    """Per-sample cosine of every two gradients: how far the rewards agree."""
    return {
        f"{a}~{b}": torch.nn.functional.cosine_similarity(gradients[a].flatten(1), gradients[b].flatten(1), dim=1)
        for a, b in combinations(gradients, 2)
    }


def inner(gradient: Float[Tensor, " B *event"], output: Float[Tensor, " B *event"]) -> Float[Tensor, " B"]:
    """<sg(gradient), output> per sample."""
    return (gradient.detach() * output).flatten(1).sum(1)


__all__ = ["cosines", "inner", "inward", "media", "output_gradient", "sizes", "unit"]
