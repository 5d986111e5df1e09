"""A reward averaged over contexts in which its prompt might have been meant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.texts import unpacked
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status, device_of
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.judges._around import AroundReward
from mmalign.rewards.models.asking import Make
from mmalign.rewards.models.template import check_template

__all__ = ["Marginal"]


@dataclass
class Marginal(AroundReward):
    """E_z r(x, z, y): the mean of another reward over the contexts z of a prompt, each put into it by a template.

    Pitis et al. 2024 (2407.14916) write a preference as p(y₁ ≻ y₂ | x) = E_z p(y₁ ≻ y₂ | x, z): a criterion, a user or
    a scenario decides, and where none is given all are averaged. A context in which the inner reward has no value is
    left out; a row without any value has the status of its last. `parts`: `spread`, the standard deviation over
    contexts, is how much the context matters.

    Args:
        inner: the reward, {name: …, options…}.
        contexts: of every prompt.
        column: of `Prompt.meta`: a prompt's own contexts, a list of texts, or {text: weight}; they come before those of
            the run. "": it has none.
        template: the prompt that the inner reward sees, with {context} and {prompt}.
    """

    inner: dict[str, Any]
    contexts: list[str] = field(default_factory=list)
    column: str = "contexts"
    template: str = "{context} {prompt}"
    make: Make | None = field(default=None, repr=False)
    differentiable = False

    def __post_init__(self) -> None:
        self._built("marginal")
        self._template = check_template(self.template, "template", ["context"])
        self.make = None

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that the inner reward judges."""
        return frozenset(self._inner.modalities)

    @property
    def needs(self) -> tuple[str, ...]:
        """The inner reward's columns, and that of the contexts where the run has none."""
        own = () if self.contexts or not self.column else (self.column,)
        others = tuple(name for name in self._template.columns if name != "context")
        return (*own, *others, *super().needs)

    def fingerprint(self) -> str:
        """What tells the inner reward from any other."""
        return identity(self._inner.reward) or ""

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where a row's contexts cannot be read, or the inner reward can never score it."""
        inner = super().check_data

        def check(prompt: Prompt) -> None:
            self._of(prompt)
            inner(prompt)

        return check

    @without_gradient
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        each, faults = [], {}
        for row, prompt in enumerate(rollout.prompts):
            try:
                each.append(list(self._of(prompt).items()))
            except ValueError as error:
                each.append([])
                faults[row] = str(error)
        places = [
            (row, k) for k in range(max(map(len, each), default=0)) for row in range(len(each)) if k < len(each[row])
        ]
        value, weight = torch.full((2, len(each), max(map(len, each), default=0)), float("nan"), dtype=torch.float64)
        status, info = torch.full((len(each),), int(Status.NOT_APPLICABLE)), [""] * len(each)
        if places:
            scores = self._judged(rollout, places, each)
            for at, (row, k) in enumerate(places):
                if bool(scores.valid[at]):
                    value[row, k], weight[row, k] = float(scores.value[at]), each[row][k][1]
                status[row] = int(scores.status[at]) if weight[row].isnan().all() else int(Status.OK)
                info[row] = info[row] or (scores.info[at] if scores.info else "")
        for row, why in faults.items():
            status[row], info[row] = int(Status.ERROR), why
        return self._averaged(value, weight, status.to(torch.int8), info).to(device_of(rollout.output))

    def _judged(self, rollout: Rollout, places: list[tuple[int, int]], each: list[list[tuple[str, float]]]) -> Scores:
        """The inner reward's scores of every row in every context; rows of a group stay one in each context."""
        rows = torch.tensor([row for row, _ in places])
        within = rollout[rows]
        prompts = [self._in(prompt, each[row][k][0]) for prompt, (row, k) in zip(within.prompts, places, strict=True)]
        apart = torch.tensor([k for _, k in places]) * (int(rollout.group.max()) + 1)
        return self._inner(replace(within, prompts=prompts, group=within.group + apart.to(within.group))).to("cpu")

    def _in(self, prompt: Prompt, context: str) -> Prompt:
        shown = Prompt(prompt.text, meta={**prompt.meta, "context": context})
        return replace(prompt, text=self._template.filled(shown))

    def _averaged(self, value: Tensor, weight: Tensor, status: Tensor, info: list[str]) -> Scores:
        """The weighted mean over contexts, and how much they differ."""
        total = weight.nansum(1)
        mean = (value * weight).nansum(1) / total
        spread = ((value - mean[:, None]).square() * weight).nansum(1).div(total).sqrt()
        mean = torch.where(status == Status.OK, mean, float("nan"))
        mean = torch.where(status == Status.PARSE_FAIL, self.range[0], mean)
        return Scores(mean.float(), status, parts={"spread": spread.float()}, info=info if any(info) else None)

    def _of(self, prompt: Prompt) -> dict[str, float]:
        """The contexts of a prompt with their weights.

        Raises:
            ValueError: its column holds something else.
        """
        cell = prompt.meta.get(self.column) if self.column else None
        cell = unpacked(cell, f"Prompt.meta['{self.column}']")
        own = [cell] if isinstance(cell, str) else [] if cell is None else cell
        pairs = dict(own) if isinstance(own, dict) else dict.fromkeys(own, 1.0) if isinstance(own, list | tuple) else {}
        if not all(isinstance(k, str) and isinstance(v, int | float) and 0 < v < math.inf for k, v in pairs.items()):
            raise ValueError(f"Prompt.meta['{self.column}'] is a list of texts, or weights above 0 by text")
        if cell is not None and not pairs:
            raise ValueError(f"Prompt.meta['{self.column}'] holds no context: {str(cell)[:60]!r}")
        return {**{str(k): float(v) for k, v in pairs.items()}, **dict.fromkeys(self.contexts, 1.0)}
