"""A rule decides right or wrong; a model reward orders answers within each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int

from mmalign.core.options import Share
from mmalign.core.protocols import Bounds
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores
from mmalign.rewards.combine._parts import RuleAndModel, valued, worst_status
from mmalign.rewards.functional import stratified

__all__ = ["Stratified"]


@dataclass
class Stratified(RuleAndModel):
    """Stratified normalisation (HERO, arXiv 2510.07242; from a public note): see `functional.stratified`.

    Weights do not matter; slots other than the two are ignored. Rows without a value of either leave the strata.

    Args:
        rule: the slot that says right (above 0.5) or wrong.
        model: the slot that orders; any scale.
        low: half width of the band of wrong answers around 0.
        high: half width of the band of right answers around 1.
    """

    rule: str
    model: str
    low: Share = 0.05
    high: Share = 0.05
    differentiable = False
    relative = True

    def __post_init__(self) -> None:
        if not (self.low >= 0 and self.high >= 0 and self.low + self.high < 1):
            raise ValueError(f"low + high must be below 1 for the rule to dominate, got {self.low} and {self.high}")

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        both = {name: parts[name] for name in self.mentions}
        status = worst_status(both)
        rule, model = both[self.rule].value.detach(), both[self.model].value.detach().to(both[self.rule].value.device)
        usable = ~(rule.isnan() | model.isnan())
        value = torch.full_like(rule, float("nan"))
        value[usable] = stratified(rule[usable], model[usable], group.to(rule.device)[usable], self.low, self.high)
        return valued(value, status)

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The bounds of both bands together."""
        return -self.low, 1 + self.high
