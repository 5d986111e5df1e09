"""A rule where it can say, a model where it cannot, on one scale: HARMO's hybrid reward as a single slot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mmalign.core.errors import ConfigError
from mmalign.core.options import NotNegative, Positive
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.combine.confidence import Confidence
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.call import Guarded
from mmalign.rewards.engine.contract import joined_info, merge_at
from mmalign.rewards.engine.traits import data_check
from mmalign.rewards.judges._around import row_reward
from mmalign.rewards.models.asking import Make

__all__ = ["Hybrid"]


@dataclass
class Hybrid:
    """c × rule + (1 - c) × model, in [0, 1], with c how far the rule is trusted (HARMO, 2510.05283; a reconstruction).

    c is `trust`, times the rule's own confidence where it states one, and 0 where the rule is not applicable: there the
    model judges alone. Both are brought to [0, 1] first: the rule from its declared range, the model as `scale` says.
    The model is asked only where c is below 1. A malformed output is the rule's PARSE_FAIL. `parts`: `rule` and `model`
    on the common scale, and `trust`; the confidence is c.

    The same of two slots of a run, which are then logged and weighted on their own: `combine: {name: confidence}`.

    Args:
        rule: the reward that may be sure, {name: …, options…}.
        model: the reward that stands in.
        trust: of a rule that applies; 1: the model is not heard there.
        scale: the model's values to [0, 1]: `range`, from its declared range; `sigmoid`, of (value - middle) / spread.
        middle: of the model's values, for `sigmoid`.
        spread: of the model's values, for `sigmoid`.
    """

    rule: dict[str, Any]
    model: dict[str, Any]
    trust: NotNegative = 1.0
    scale: Literal["range", "sigmoid"] = "range"
    middle: float = 0.0
    spread: Positive = 1.0
    make: Make | None = field(default=None, repr=False)
    range = (0.0, 1.0)
    differentiable = False

    def __post_init__(self) -> None:
        faults = [] if 0 < self.trust <= 1 else [f"trust: {self.trust} is not in (0, 1]."]
        faults += [] if self.spread > 0 else [f"spread: {self.spread} must be above 0."]
        if self.make is None:
            faults.append("reward 'hybrid' is built of two rewards; use mmalign.load_reward or a run file.")
        if faults or self.make is None:
            raise ConfigError(faults)
        self._rule, self._model = _built("rule", self.rule, self.make), _built("model", self.model, self.make)
        self.make = None
        scaled = [("rule", self._rule), *([("model", self._model)] if self.scale == "range" else [])]
        for name, judge in scaled:
            if not all(map(math.isfinite, judge.range)):
                raise ConfigError(f"{name}: has no finite range {judge.range} to be scaled from; set scale: sigmoid.")

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that both the rule and the model can judge."""
        return frozenset(self._rule.modalities) & frozenset(self._model.modalities)

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that the model needs; a row without the rule's is what the model is there for."""
        return self._model.traits.needs

    @property
    def batch_dependent(self) -> bool:
        """Whether the value of a row depends on the other rows in the rule or in the model."""
        return any(part.traits.batch_dependent for part in (self._rule, self._model))

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs score the same in the rule and in the model."""
        return all(part.traits.deterministic for part in (self._rule, self._model))

    def fingerprint(self) -> str:
        """What tells the rule and the model from any others."""
        return " ".join(identity(part.reward) or "-" for part in (self._rule, self._model))

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where the rule, which may lack its columns, or the model can never score the row."""
        return data_check(self._rule.reward, self._model.reward)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows: c × rule + (1 - c) × model, where c is how far the rule is trusted there.

        `parts`: "rule" and "model", both on [0, 1], and "trust". What the rule cannot read is PARSE_FAIL.
        """
        rule = self._rule(rollout).to("cpu")
        rule.value = _from_range(rule.value, self._rule.range)
        own = torch.ones(len(rule)) if rule.confidence is None else rule.confidence
        rule.confidence = torch.where(rule.status == Status.NOT_APPLICABLE, torch.zeros_like(own), self.trust * own)
        model = self._model_scores(rollout, rule)
        combined = Confidence("rule", "model")({"rule": rule, "model": model}, {}, rollout.group.cpu())
        malformed = rule.status == Status.PARSE_FAIL
        combined.status[malformed] = int(Status.PARSE_FAIL)
        combined.value[malformed] = self.range[0]
        combined.parts = {"rule": rule.value, "model": model.value, "trust": rule.confidence}
        combined.info = joined_info({"rule": rule, "model": model})
        return combined

    def _model_scores(self, rollout: Rollout, rule: Scores) -> Scores:
        """The model's scores on the common scale of the rows where the rule is not sure; NaN of the others."""
        judged = (rule.status == Status.OK) | (rule.status == Status.NOT_APPLICABLE)  # else its status is the row's
        sure = ~judged | (rule.confidence == 1)
        silent = Scores(torch.full((len(rule),), float("nan")), torch.zeros(len(rule), dtype=torch.int8))
        needed = torch.ones_like(sure) if self.batch_dependent else ~sure
        if not needed.any():
            return silent
        rows, others = needed.nonzero().flatten(), (~needed).nonzero().flatten()
        scores = self._model(rollout[rows]).to("cpu")
        low = torch.sigmoid((scores.value - self.middle) / self.spread)
        scores.value = _from_range(scores.value, self._model.range) if self.scale == "range" else low
        return merge_at([(rows, scores), *([(others, silent[others])] if len(others) else [])], len(rule), "cpu")


def _built(name: str, spec: dict[str, Any], make: Make) -> Guarded:
    return Guarded(name, row_reward(make, spec, name), monitor=True)


def _from_range(value: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    low, high = bounds
    return ((value - low) / (high - low)).clamp(0, 1)
