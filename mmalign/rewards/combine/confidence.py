"""A rule where it is sure, a model reward where it is not: c × rule + (1 - c) × model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int

from mmalign.core.protocols import Bounds
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.combine._parts import LazyRanges, RuleAndModel, map_advice, valued, worst_status

__all__ = ["Confidence"]


@dataclass
class Confidence(RuleAndModel):
    """c × rule + (1 - c) × model with c the rule's own confidence per row.

    A reconstruction of the hybrid reward of HARMO (arXiv 2510.05283).

    c is 1 where the rule has a value but states no confidence, 0 where it is not applicable: the model judges alone.
    A model without a value is missed only where c is below 1. Both must have one range, such as [0, 1], which
    slots have by `map`; weights do not matter and slots other than the two are ignored.

    Args:
        rule: the slot that may be sure.
        model: the slot that stands in.
    """

    rule: str
    model: str
    differentiable = True

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: Int[Tensor, " B"]) -> Scores:
        """Combine B rows."""
        rule, model = parts[self.rule], parts[self.model].to(parts[self.rule].value.device)
        sure = torch.ones_like(rule.value) if rule.confidence is None else rule.confidence
        sure = torch.where(rule.status == Status.NOT_APPLICABLE, torch.zeros_like(sure), sure)
        zero = torch.zeros_like(rule.value)
        first = torch.where(sure > 0, sure * rule.value, zero)
        second = torch.where(sure < 1, (1 - sure) * model.value, zero)
        status = worst_status({self.rule: rule, self.model: model})
        status = torch.where(sure <= 0, torch.where(rule.status == Status.NOT_APPLICABLE, model.status, status), status)
        status = torch.where((sure >= 1) & rule.valid, rule.status, status)
        return valued(first + second, status, sure)

    def faults(self, ranges: LazyRanges, weights: Mapping[str, float]) -> list[str]:
        """Two ranges: a mean of both would be on neither scale."""
        rule, model = ranges[self.rule], ranges[self.model]
        if tuple(rule) == tuple(model):
            return []
        odd = self.rule if tuple(model) == (0, 1) else self.model
        return [
            f"combine: confidence needs both on one scale, but rewards.{self.rule} has the range {tuple(rule)} and "
            f"rewards.{self.model} {tuple(model)}; {map_advice(odd, ranges[odd])}"
            f"{'' if (0, 1) in (tuple(rule), tuple(model)) else ', and so the other'}."
        ]

    def bounds(self, ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
        """The bounds that follow from the wider of the two."""
        spans = [ranges[name] for name in self.mentions]
        return min(low for low, _ in spans), max(high for _, high in spans)
