"""Adapters and prompts for the policy tests, built on the toys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign.core.protocols import Prediction
from mmalign.core.types import Prompt
from tests.toys import ToyLatent


class CountingLatent(ToyLatent):
    """A toy that notes the number of rows of every forward."""

    def __init__(self, prediction: Prediction = "flow", **more: Any) -> None:
        super().__init__(prediction, **more)
        self.forwards: list[int] = []

    def predict(self, x: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        self.forwards.append(len(x))
        return super().predict(x, times, condition)


class DoubleLatent(ToyLatent):
    """A toy whose weights are float64, and its arithmetic where x is, for finite differences."""

    def __init__(self, prediction: Prediction = "flow", **more: Any) -> None:
        super().__init__(prediction, **more)
        self.module = self.module.double()

    def predict(self, x: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return super().predict(x.double(), times.double(), condition).to(x.dtype)


def grouped(groups: int = 3, size: int = 4) -> list[Prompt]:
    """Group-major prompts: `groups` different texts, `size` rows each."""
    return [Prompt("x" * (g + 1)) for g in range(groups) for _ in range(size)]


def generator(seed: int = 0) -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(seed)


def jolt(adapter: ToyLatent, size: float = 0.3, seed: int = 1) -> None:
    """Move the weights away from where they started."""
    rng = generator(seed)
    with torch.no_grad():
        for parameter in adapter.module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype))


def slope(adapter: ToyLatent, value: Any, step: float = 1e-5) -> Tensor:
    """Central finite differences of the scalar `value()` by every weight, flattened."""
    slopes = []
    with torch.no_grad():
        for parameter in adapter.module.parameters():
            flat = parameter.view(-1)
            for i in range(len(flat)):
                kept = flat[i].item()
                flat[i] = kept + step
                above = value().item()
                flat[i] = kept - step
                below = value().item()
                flat[i] = kept
                slopes.append((above - below) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)


def gradient(adapter: ToyLatent, value: Any) -> Tensor:
    """Autograd's gradient of the scalar `value()` by every weight, flattened."""
    grads = torch.autograd.grad(value(), list(adapter.module.parameters()))
    return torch.cat([g.flatten() for g in grads]).double()


def descend(adapter: ToyLatent, loss: Any, steps: int, rate: float) -> None:
    """Plain gradient descent with the gradient's norm held at most 1."""
    for _ in range(steps):
        parameters = list(adapter.module.parameters())
        grads = torch.autograd.grad(loss(), parameters)
        norm = torch.stack([g.norm() for g in grads]).norm().clamp(min=1)
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.sub_(rate * grad / norm)
