"""A main reward maximised while others are held at thresholds, by multipliers that learn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int

from mmalign.core.options import Positive, Share, outside, refuse
from mmalign.core.protocols import Mean, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    Scale,
    no_weight,
    scaled_bounds,
    stacked,
    step_credit,
    valued,
    weight_column,
    weighted_bounds,
    worst_status,
)
from mmalign.rewards.combine._threshold_search import Tried, next_point

__all__ = ["Lagrangian"]

_TRIED = "/tried"  # no slot is called so


@dataclass
class Lagrangian:
    """Σ_free w r + Σ_held λ w r, where λ rises while a held reward is below its threshold and falls while above.

    The dual of "maximise the free rewards where every held one reaches θ", ascended on the mean of each batch:

    | multiplier | λ | step on μ | source |
    |---|---|---|---|
    | squashed | σ(μ) in (0, 1), tanh(μ) for `equal` | lr ∂λ/∂μ (θ - mean) | Moskovitz et al. 2023, 2310.04373 |
    | projected | μ kept in [0, `most`], [-`most`, `most`] for `equal` | lr (θ - mean) | projected dual ascent |

    `squashed` weighs a held reward at most as much as a free one of equal weight, and moves slowly near its ends;
    `projected` starts at 0, lets a violated threshold outweigh the main reward, and is quick to let go. A
    reconstruction at the level of rewards: the paper also weighs its KL advantage by N - Σ λ, which here is the
    objective's own β. λ is the same on every process, and part of the checkpoint.

    Args:
        thresholds: θ by slot, in the slot's own units; slots not named are free.
        kind: `at_least`, or `equal`, where λ may turn negative and push back.
        multiplier: how λ is kept in bounds.
        most: the largest λ of `projected`.
        lr: of μ.
        momentum: of μ; a μ that meets its bound loses it.
        scale: of the summed values; means are compared with θ always raw.
        search: a judge or reward of the evaluation, best one that is not trained on: after each held-out evaluation
            (`trainer.evaluate_every`) its mean is the value of the thresholds that were held since the one before, and
            Nelder and Mead's simplex says which to hold next, within one run as in the paper. "": they stay.
        reach: by how much each threshold of the first simplex is above `thresholds`.
    """

    thresholds: dict[str, float]
    kind: Literal["at_least", "equal"] = "at_least"
    multiplier: Literal["squashed", "projected"] = "squashed"
    most: Positive = 10.0
    lr: Positive = 0.01
    momentum: Share = 0.1
    scale: Scale = "group_z"
    search: str = ""
    reach: float = 0.1
    differentiable = True
    adapting = True
    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)
    _mu: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _velocity: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _tried: Tried = field(default_factory=list, init=False, repr=False)
    _held: dict[str, float] = field(default_factory=dict, init=False, repr=False)  # the thresholds that are held now

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise ValueError("thresholds: name at least one slot and the value to hold it at")
        refuse(
            outside(self, ("most", "lr"), "above 0 and finite", lambda value: 0 < value < math.inf),
            outside(self, ("momentum",), "in [0, 1)", lambda value: 0 <= value < 1),
            outside(self, ("reach",), "finite and not 0", lambda value: math.isfinite(value) and value != 0),
            [f"thresholds.{n} must be finite, not {v}" for n, v in self.thresholds.items() if not math.isfinite(v)],
        )
        # σ(0) = 0.5 as in the paper; tanh starts as high, not at 0 where nothing would be optimised.
        start = 0.5493 if self.multiplier == "squashed" and self.kind == "equal" else 0.0
        self._mu = dict.fromkeys(self.thresholds, start)
        self._velocity = dict.fromkeys(self.thresholds, 0.0)
        self._held = dict(self.thresholds)

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return tuple(self.thresholds)

    @property
    def limits(self) -> tuple[float, float]:
        """Between which λ stays."""
        high = 1.0 if self.multiplier == "squashed" else self.most
        return (-high if self.kind == "equal" else 0.0), high

    @property
    def multipliers(self) -> dict[str, float]:
        """λ by held slot."""
        if self.multiplier == "projected":
            return dict(self._mu)
        squash = torch.sigmoid if self.kind == "at_least" else torch.tanh
        return {name: float(squash(torch.tensor(mu, dtype=torch.float64))) for name, mu in self._mu.items()}

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows under the present λ, then move λ."""
        multipliers = self.multipliers
        values = stacked(parts, self.scale, group)
        scaled = {name: weights[name] * multipliers.get(name, 1.0) for name in parts}
        scores = valued((weight_column(parts, scaled, values) * values).sum(0), worst_status(parts))
        scores.per_step = step_credit(parts, scaled) if self.scale == "raw" else None
        if self.adapting:
            self._adapt(parts)
        return scores

    def measured(self, value: float) -> None:
        """Take in what the thresholds that are held now came to, and hold those that are to be tried next.

        A value that is not finite says nothing: they are tried for longer.
        """
        if math.isfinite(value):
            self._tried.append((tuple(self._held.values()), value))
            self._hold_next()

    def _hold_next(self) -> None:
        point = next_point(list(self.thresholds.values()), self.reach, self._tried)
        self._held = dict(zip(self.thresholds, point, strict=True))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are all 0."""
        return no_weight(weights)

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The sum's bounds over every λ; endless under `group_z`."""
        low, high = 0.0, 0.0
        for name, span in scaled_bounds(ranges, self.scale).items():
            factors = self.limits if name in self.thresholds else (1.0,)
            ends = [weighted_bounds({name: span}, {name: weights[name] * factor}) for factor in factors]
            low, high = low + min(a for a, _ in ends), high + max(b for _, b in ends)
        return low, high

    def metrics(self) -> dict[str, Tensor]:
        """λ by held slot, and while they are searched for the thresholds."""
        logged = {f"multiplier/{name}": torch.tensor(value) for name, value in self.multipliers.items()}
        held = {f"threshold/{name}": torch.tensor(value) for name, value in self._held.items()}
        return logged | held if self.search else logged

    def state_dict(self) -> dict[str, Tensor]:
        """μ and its velocity by held slot: (2,) float64; and "/tried", (N, K + 1): thresholds with their values."""
        state = {n: torch.tensor([self._mu[n], self._velocity[n]], dtype=torch.float64) for n in self.thresholds}
        tried = [[*point, value] for point, value in self._tried]
        return state | ({_TRIED: torch.tensor(tried, dtype=torch.float64)} if tried else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up μ and its velocity."""
        if (saved := set(state) - {_TRIED}) != set(self.thresholds):
            raise ValueError(
                f"the saved multipliers are of {sorted(saved)}, the thresholds of {sorted(self.thresholds)}"
            )
        for name in self.thresholds:
            self._mu[name], self._velocity[name] = state[name].tolist()
        self._tried = [(tuple(row[:-1]), row[-1]) for row in state[_TRIED].tolist()] if _TRIED in state else []
        if self._tried:
            self._hold_next()

    def _adapt(self, parts: Mapping[str, Scores]) -> None:
        for name, threshold in self._held.items():
            values = parts[name].value.detach()[parts[name].valid].double()
            seen = values.new_tensor([float(values.sum()), len(values)])
            total, count = self.over_ranks(seen).tolist()
            if count:
                self._move(name, total / count - threshold)

    def _move(self, name: str, excess: float) -> None:
        """One step of μ down the batch's `excess` of mean over threshold."""
        velocity = self.momentum * self._velocity[name] + self._slope(name) * excess
        wanted = self._mu[name] - self.lr * velocity
        low, high = self.limits if self.multiplier == "projected" else (-float("inf"), float("inf"))
        self._mu[name] = min(max(wanted, low), high)
        self._velocity[name] = velocity if self._mu[name] == wanted else 0.0

    def _slope(self, name: str) -> float:
        """∂λ/∂μ."""
        if self.multiplier == "projected":
            return 1.0
        value = self.multipliers[name]
        return value * (1 - value) if self.kind == "at_least" else 1 - value**2
