"""How far the trained weights are from where they started: ‖θ - θ₀‖², or ‖BA‖² for LoRA.

For LoRA, whose update of a weight is BA, ‖BA‖²_F = tr((BᵀB)(AAᵀ)) (rank × rank work; the constant α/r is left out).
LoRA pairs are recognised by peft's parameter names, `…lora_A…` and `…lora_B…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor

A, B = ".lora_A.", ".lora_B."


def start_weights(policy: Any) -> dict[str, Tensor]:
    """A copy of what the trained weights (LoRA apart) were at the start, by name, from `policy.reference()`."""
    names = {name for name, _ in _trained(policy.module) if "lora_" not in name}
    if not names:
        return {}
    with policy.reference():
        found = {_plain(name): p.detach().clone() for name, p in policy.module.named_parameters()}
    if missing := sorted(names - set(found)):
        raise CapabilityError(f"weight_decay_to_start: the reference has no weight '{missing[0]}' to return to.")
    return {name: found[name] for name in names}


def squared_distance(module: torch.nn.Module, start: Mapping[str, Tensor]) -> Float[Tensor, ""]:
    """Σ ‖θ - θ₀‖² over plain trained weights plus Σ ‖BA‖² over LoRA pairs, with gradient."""
    trained = dict(_trained(module))
    total = torch.zeros((), device=next(iter(trained.values())).device)
    for name, weight in trained.items():
        if A in name:
            total = total + _product(weight, trained[name.replace(A, B)])
        elif "lora_" not in name:
            total = total + (_wide(weight) - _wide(start[name].to(weight.device))).square().sum()
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


__all__ = ["squared_distance", "start_weights"]
