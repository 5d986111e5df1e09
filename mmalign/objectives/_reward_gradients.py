"""Reward gradients with respect to outputs, and the L2 distance of the trained weights from the initial ones.

**Reward gradients** are computed and freed before the generator's own backward pass:

    surrogate = <sg(g), y>,   g = Σ_i w_i g_i / (‖g_i‖ + 1e-8),   g_i = ∂ r_i / ∂ y per sample

has the gradient of Σ_i w_i r_i / ‖g_i‖ (norms held fixed) with respect to whatever made y, whether the rewards were
evaluated together or one after the other: the graph of one reward is alive at a time.

**L2 to the initial weights** (`l2_to_initial`): ‖θ - θ₀‖², or ‖BA‖² for LoRA, whose update of a weight is BA:
‖BA‖²_F = tr((BᵀB)(AAᵀ)) (rank × rank work; the constant α/r is left out). LoRA pairs are recognised by peft's
parameter names, `…lora_A…` and `…lora_B…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import DiffPolicy
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Rollout
from mmalign.objectives._rollouts import Scorer, score_rollout

TINY = 1e-8
A, B = ".lora_A.", ".lora_B."


def output_tensor(output: object) -> Tensor:
    """Return the tensor behind images (B, 3, H, W) or the samples (B, C, S) of `Audio`."""
    tensor = output.samples if isinstance(output, Audio) else output
    if not isinstance(tensor, Tensor):
        raise CapabilityError(f"r0 needs outputs that carry gradient (images or sound), got {type(output).__name__}.")
    return tensor


def output_gradient(reward: Scorer, rollout: Rollout) -> tuple[Tensor, Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """∂ reward / ∂ output per sample (0 for invalid rows), the values, and which rows are valid."""
    leaf = output_tensor(rollout.output).detach().requires_grad_()
    output = replace(rollout.output, samples=leaf) if isinstance(rollout.output, Audio) else leaf
    trajectory = {name: entry.detach() for name, entry in rollout.trajectory.items()}
    with torch.enable_grad():
        scores = score_rollout(reward, replace(rollout, output=output, trajectory=trajectory))
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


def drop_outward(gradient: Float[Tensor, " B *event"], output: object) -> Float[Tensor, " B *event"]:
    """The gradient, 0 where it would push a saturated value (an image's at 0 or 1, a sound's at ±1) further out."""
    values, low = output_tensor(output).detach(), -1.0 if isinstance(output, Audio) else 0.0
    lost = ((values <= low) & (gradient < 0)) | ((values >= 1) & (gradient > 0))
    return gradient.masked_fill(lost, 0.0)


def gradient_norms(gradient: Float[Tensor, " B *event"]) -> Float[Tensor, " B"]:
    """Return the Euclidean norm (B,) of every sample's gradient (B, ...), in float32 or better."""
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide.flatten(1).norm(dim=1)


def unit_gradients(gradient: Float[Tensor, " B *event"]) -> Float[Tensor, " B *event"]:
    """Every sample's gradient divided by its norm + 1e-8; a zero gradient stays zero."""
    norm = gradient_norms(gradient) + TINY
    return gradient / norm.reshape(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)


def cosines(gradients: Mapping[str, Float[Tensor, " B *event"]]) -> dict[str, Float[Tensor, " B"]]:
    """Return the cosine in [-1, 1] between every two rewards' gradients, per sample: how far the rewards agree."""
    return {
        f"{a}~{b}": torch.nn.functional.cosine_similarity(gradients[a].flatten(1), gradients[b].flatten(1), dim=1)
        for a, b in combinations(gradients, 2)
    }


def inner_products(gradient: Float[Tensor, " B *event"], output: Float[Tensor, " B *event"]) -> Float[Tensor, " B"]:
    """Return the inner product of each sample with its gradient, which is taken as a constant."""
    return (gradient.detach() * output).flatten(1).sum(1)


def initial_weights(policy: DiffPolicy) -> dict[str, Tensor]:
    """Return a copy of what the trained weights (LoRA apart) were at the start, by name, from `policy.reference()`."""
    names = {name for name, _ in _trained(policy.module) if "lora_" not in name}
    if not names:
        return {}
    with policy.reference():
        initial = {_plain(name): p.detach().clone() for name, p in policy.module.named_parameters()}
    if missing := sorted(names - set(initial)):
        raise CapabilityError(f"weight_decay_to_start: the reference has no weight '{missing[0]}' to return to.")
    return {name: initial[name] for name in names}


def l2_to_initial(module: torch.nn.Module, initial: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Σ ‖θ - θ₀‖² over plain trained weights plus Σ ‖BA‖² over LoRA pairs, with gradient."""
    trained = dict(_trained(module))
    total = torch.zeros((), device=next(iter(trained.values())).device)
    for name, weight in trained.items():
        if A in name:
            total = total + _product(weight, trained[name.replace(A, B)])
        elif "lora_" not in name:
            total = total + (_wide(weight) - _wide(initial[name].to(weight.device))).square().sum()
        elif B not in name:
            raise CapabilityError(f"weight_decay_to_start does not know the LoRA weight '{name}'; set it to 0.")
    return total


def _product(a: Tensor, b: Tensor) -> Tensor:
    a, b = _wide(a).flatten(1), _wide(b).flatten(1)  # (rank, in), (out, rank); convolutions keep their kernel in A
    return ((b.T @ b) * (a @ a.T)).sum()


def _wide(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _trained(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(_plain(name), p) for name, p in module.named_parameters() if p.requires_grad]


def _plain(name: str) -> str:
    return name.removeprefix("module.")  # what distributed wrappers put in front


__all__ = [
    "cosines",
    "drop_outward",
    "gradient_norms",
    "initial_weights",
    "inner_products",
    "l2_to_initial",
    "output_gradient",
    "output_tensor",
    "unit_gradients",
]
