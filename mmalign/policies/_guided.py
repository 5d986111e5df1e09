"""Classifier-free guidance (Ho & Salimans, 2207.12598): both branches in one doubled forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (x (B, *latent), times (B,)) → (B, *latent)


def guided(adapter: Any, condition: Condition, scale: float | None, detach_unconditional: bool = False) -> Predict:
    """The network's prediction under `condition` at guidance `scale`, as a function of (x, times).

    A scale of None or at most 1 means no guidance: one plain forward, no unconditional branch. With
    `detach_unconditional` the gradient flows through the conditional branch only (Flow-GRPO's code): cheaper in
    backward, a biased gradient.
    """
    if scale is None or scale <= 1:
        return lambda x, times: adapter.predict(x, times, condition)
    doubled = _doubled(adapter, condition)

    def predict(x: Tensor, times: Tensor) -> Tensor:
        conditional, unconditional = _both(adapter, x, times, doubled)
        return adapter.guide(conditional, unconditional.detach() if detach_unconditional else unconditional, scale)

    return predict


def both_predictions(adapter: Any, x: Tensor, times: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """(conditional, unconditional) predictions at x, in one doubled forward."""
    return _both(adapter, x, times, _doubled(adapter, condition))


def _doubled(adapter: Any, condition: Condition) -> Condition:
    rows = len(next(iter(condition.values())))
    empty = adapter.unconditional(rows)
    return {key: torch.cat([value, empty[key].to(value)]) for key, value in condition.items()}


def _both(adapter: Any, x: Tensor, times: Tensor, doubled: Condition) -> tuple[Tensor, Tensor]:
    conditional, unconditional = adapter.predict(torch.cat([x, x]), torch.cat([times, times]), doubled).chunk(2)
    return conditional, unconditional
