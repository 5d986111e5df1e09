"""All aspects good at once: Σ weight × log σ(value - reference)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int

from mmalign.core.options import AtLeastOne, Share, refuse
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.combine._base_references import BaseReferences
from mmalign.rewards.combine._parts import (
    Bounds,
    LazyRanges,
    Scale,
    not_positive,
    stacked,
    valued,
    weight_column,
    worst_status,
)

__all__ = ["LogSigmoid"]


@dataclass
class LogSigmoid:
    """The log of "every aspect is good" when each is good with chance σ(value - reference) (2402.00742).

    Σ_k w_k log σ((v_k - ref_k) / τ_k), of Wang et al. 2024 with τ = 1: a bad aspect costs more than another's excess
    gains, so no reward can buy off the others. With `references: base` ref_k is the paper's: for each prompt the
    `quantile` of what the policy's start scores on it, of `samples` outputs that are drawn when the prompt first comes,
    by a seed of its own. They lie in checkpoints and never change. A prompt on which a slot gave the start no value has
    none, and its rows are NOT_APPLICABLE.

    Args:
        references: what counts as good: `base`, or a number by slot (default 0), for every prompt.
        quantile: of the start's values, for `base`.
        samples: outputs of the start on each prompt, for `base`; the first pass over the data takes so many more.
        temperatures: τ by slot (default 1), in its own units: of rewards that are no log-odds as much as outputs of
            one prompt differ, else σ is as good as a straight line.
        scale: `raw` as in the paper, for rewards whose unit is a log-odds; `group_z` for others.
    """

    references: dict[str, float] | Literal["base"] = field(default_factory=dict)
    quantile: Share = 0.85
    samples: AtLeastOne = 16
    temperatures: dict[str, float] = field(default_factory=dict)
    scale: Scale = "raw"
    differentiable = True
    base: BaseReferences = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.references if isinstance(self.references, dict) else {}
        refuse(
            [f"references.{n} must be finite, not {v}" for n, v in given.items() if not math.isfinite(v)],
            [f"temperatures.{n} must be above 0, not {v}" for n, v in self.temperatures.items() if not v > 0],
        )
        if self.of_prompts and self.scale != "raw":
            raise ValueError("references: base are values of rewards as they are; set scale: raw, or give numbers")
        self.base = BaseReferences(self.quantile)

    @property
    def of_prompts(self) -> bool:
        """Does each prompt have references of its own?"""
        return self.references == "base"

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        references = self.references if isinstance(self.references, dict) else {}
        return tuple({**references, **self.temperatures})

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows, by references that all prompts share."""
        values = stacked(parts, self.scale, group)
        given = self.references if isinstance(self.references, dict) else {}
        reference = weight_column(parts, {name: given.get(name, 0.0) for name in parts}, values)
        return self._combined(parts, weights, values, reference)

    def of_rows(
        self,
        keys: Sequence[bytes],
        parts: Mapping[str, Scores],
        weights: Mapping[str, float],
        group: Int[Tensor, " B"],
    ) -> Scores:
        """Combine B rows, by the references of the prompt of each, known by its key."""
        values = stacked(parts, self.scale, group)
        return self._combined(parts, weights, values, self.base.of(keys, list(parts)).to(values))

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Weights that are not above 0: a negative one would reward the bad."""
        return not_positive(weights, "combine: log_sigmoid takes positive weights (a monitor has none)")

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The bounds of the value, which is never above 0."""
        return float("-inf"), 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """The references of prompts seen so far; {} of those that all share."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        self.base.load_state_dict(state)

    def _combined(
        self, parts: Mapping[str, Scores], weights: Mapping[str, float], values: Tensor, reference: Tensor
    ) -> Scores:
        heat = weight_column(parts, {name: self.temperatures.get(name, 1.0) for name in parts}, values)
        good = torch.nn.functional.logsigmoid((values - reference) / heat)
        summed = (weight_column(parts, weights, values) * good).sum(0)
        status = worst_status(parts)
        nowhere = reference.isnan().any(0).expand_as(status) & (status == Status.OK)
        return valued(summed, torch.where(nowhere, int(Status.NOT_APPLICABLE), status).to(torch.int8))
