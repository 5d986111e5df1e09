"""Rewards held at thresholds by multipliers that learn, against over-optimising any one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    Scale,
    scaled_bounds,
    stacked,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)

__all__ = ["Lagrangian"]


@dataclass
class Lagrangian:
    """Σ_free w r + Σ_held λ w r, where λ falls while a held reward is above its threshold and rises while below.

    After Moskovitz et al. 2023 ("Confronting Reward Model Overoptimization with Constrained RLHF"): λ = σ(μ) for
    "at least θ", tanh(μ) for "exactly θ", μ by SGD on Σ λ_i (mean_i - θ_i). A reconstruction at the level of rewards:
    the paper also weighs its KL advantage by N - Σ λ, which here is the objective's own β.

    Args:
        thresholds: θ by slot, in the slot's own units; slots not named are free.
        kind: `at_least`, or `equal`, where λ may turn negative and push back.
        lr: of μ.
        momentum: of μ.
        scale: of the summed values; means are compared with θ always raw.
    """

    thresholds: dict[str, float]
    kind: Literal["at_least", "equal"] = "at_least"
    lr: float = 0.01
    momentum: float = 0.1
    scale: Scale = "group_z"
    differentiable = True
    adapting = True
    _mu: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _velocity: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise ValueError("thresholds: name at least one slot and the value to hold it at")
        # σ(0) = 0.5 as in the paper; tanh starts as high, not at 0 where nothing would be optimised.
        start = 0.0 if self.kind == "at_least" else 0.5493
        self._mu = dict.fromkeys(self.thresholds, start)
        self._velocity = dict.fromkeys(self.thresholds, 0.0)

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return tuple(self.thresholds)

    @property
    def multipliers(self) -> dict[str, float]:
        """λ by held slot."""
        squash = torch.sigmoid if self.kind == "at_least" else torch.tanh
        return {name: float(squash(torch.tensor(mu, dtype=torch.float64))) for name, mu in self._mu.items()}

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows under the present λ, then move λ."""
        held = self.multipliers
        values = stacked(parts, self.scale, group)
        scaled = {name: weights[name] * held.get(name, 1.0) for name in parts}
        scores = valued((weight_column(parts, scaled, values) * values).sum(0), worst_status(parts))
        if self.adapting:
            self._adapt(parts)
        return scores

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The sum's bounds over every λ; endless under `group_z`."""
        least = {"at_least": 0.0, "equal": -1.0}[self.kind]
        low, high = 0.0, 0.0
        for name, span in scaled_bounds(ranges, self.scale).items():
            ends = [weighted_bounds({name: span}, {name: weights[name]})]
            if name in self.thresholds:
                ends.append(weighted_bounds({name: span}, {name: weights[name] * least}))
            low, high = low + min(a for a, _ in ends), high + max(b for _, b in ends)
        return low, high

    def metrics(self) -> dict[str, Tensor]:
        """λ by held slot."""
        return {f"multiplier/{name}": torch.tensor(value) for name, value in self.multipliers.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """μ and its velocity by held slot: (2,) float64."""
        return {n: torch.tensor([self._mu[n], self._velocity[n]], dtype=torch.float64) for n in self.thresholds}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up μ and its velocity."""
        if set(state) != set(self.thresholds):
            raise ValueError(
                f"the saved multipliers are of {sorted(state)}, the thresholds of {sorted(self.thresholds)}"
            )
        for name, value in state.items():
            self._mu[name], self._velocity[name] = value.tolist()

    def _adapt(self, parts: Mapping[str, Scores]) -> None:
        for name, threshold in self.thresholds.items():
            values = parts[name].value.detach()[parts[name].valid]
            if not len(values):
                continue
            multiplier = self.multipliers[name]
            slope = multiplier * (1 - multiplier) if self.kind == "at_least" else 1 - multiplier**2
            step = slope * (float(values.double().mean()) - threshold)
            self._velocity[name] = self.momentum * self._velocity[name] + step
            self._mu[name] -= self.lr * self._velocity[name]
