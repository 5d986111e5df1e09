"""What combinations share: the worst status, a stack of values, and a common scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int

from mmalign.core.protocols import Bounds
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.functional import group_normalize

Scale = Literal["raw", "group_z"]

# The range of each reward, which is read when it is asked for: to look at one may load the weights of a model.
if TYPE_CHECKING:
    LazyRanges: TypeAlias = Mapping[str, Bounds]
else:
    LazyRanges = Mapping[str, Any]

#: From harmless to worst; the index is the rank.
_ORDER = (Status.OK, Status.PARSE_FAIL, Status.NOT_APPLICABLE, Status.TIMEOUT, Status.ERROR)


def worst_status(parts: Mapping[str, Scores]) -> Int[Tensor, " B"]:
    """Per row the worst status of any part."""
    rank = torch.tensor([_ORDER.index(status) for status in sorted(Status)])
    ranks = [rank[part.status.long().cpu()] for part in parts.values()]
    first = next(iter(parts.values()))
    order = torch.tensor([int(status) for status in _ORDER], dtype=torch.int8)
    return order[torch.stack(ranks).amax(0)].to(first.status.device)


def stacked(parts: Mapping[str, Scores], scale: Scale, group: Int[Tensor, " B"]) -> Float[Tensor, "K B"]:
    """Values of all parts, NaN where there is none; `group_z`: each normalised within its groups first."""
    values = [part.value if scale == "raw" else group_normalize(part.value, group) for part in parts.values()]
    return torch.stack([value.to(values[0].device) for value in values])


def step_credit(parts: Mapping[str, Scores], factors: Mapping[str, float]) -> Float[Tensor, "B T"] | None:
    """Σ factor × credit of steps, for a value that is Σ factor × part (plus a constant).

    None where a part that counts credits no steps, or other steps: then nothing says how the value falls to them.
    """
    counted = {name: part for name, part in parts.items() if factors[name] != 0}
    credits = [factors[name] * part.per_step for name, part in counted.items() if part.per_step is not None]
    if not credits or len(credits) < len(counted) or len({tuple(credit.shape) for credit in credits}) > 1:
        return None
    return torch.stack([credit.to(credits[0].device) for credit in credits]).sum(0)


def no_weight(weights: Mapping[str, float]) -> list[str]:
    """A fault if every weight is 0: the value is the same whatever was made."""
    if any(weights.values()):
        return []
    return [f"rewards: every weight is 0 ({', '.join(weights)}), so that nothing can be learned; set one."]


def not_positive(weights: Mapping[str, float], why: str) -> list[str]:
    """A fault for every weight that is not above 0."""
    return [f"rewards.{name}.weight: {weight:g}; {why}." for name, weight in weights.items() if not weight > 0]


def map_advice(name: str, span: Bounds) -> str:
    """What to set so that a slot is on [0, 1]; of a range without an end the reader knows better."""
    low, high = (f"{bound:g}" if math.isfinite(bound) else "…" for bound in span)
    return f"set rewards.{name}.map: [{low}, {high}], the values that become 0 and 1"


def weight_column(parts: Mapping[str, Scores], weights: Mapping[str, float], like: Tensor) -> Float[Tensor, "K 1"]:
    """The parts' weights, to multiply a stack."""
    return torch.tensor([weights[name] for name in parts], dtype=like.dtype, device=like.device)[:, None]


def valued(value: Float[Tensor, " B"], status: Int[Tensor, " B"], confidence: Tensor | None = None) -> Scores:
    """Scores whose value is NaN exactly where the status carries none."""
    scores = Scores(value, status, confidence)
    scores.value = torch.where(scores.valid, value, float("nan"))
    return scores


def scaled_bounds(ranges: Mapping[str, Bounds], scale: Scale) -> dict[str, Bounds]:
    """The ranges after scaling: a z-score has none."""
    unbounded = (float("-inf"), float("inf"))
    return dict(ranges) if scale == "raw" else dict.fromkeys(ranges, unbounded)


def weighted_bounds(ranges: Mapping[str, Bounds], weights: Mapping[str, float]) -> Bounds:
    """Bounds of Σ weight × value."""
    ends = [sorted((_times(weights[n], low), _times(weights[n], high))) for n, (low, high) in ranges.items()]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


class RuleAndModel:
    """A combination of two slots that its options name: a rule, and the model that goes on where the rule ends."""

    rule: str
    model: str

    @property
    def mentions(self) -> tuple[str, ...]:
        """Slots named in the options."""
        return self.rule, self.model


def _times(weight: float, bound: float) -> float:
    return 0.0 if weight == 0 else weight * bound
