"""Rows of several kinds in one run, each kind with the reward that is made for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status, device_of
from mmalign.rewards import Guarded
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.contract import merge_at
from mmalign.rewards.engine.mapped import mapped
from mmalign.rewards.engine.traits import data_check
from mmalign.rewards.judges._around import row_reward
from mmalign.rewards.models.asking import Make

__all__ = ["Router"]


@dataclass
class Router:
    """The value of the reward that the row's kind names, where a column of the data says the kind.

    The router of prompt types of R³ (2402.03469: open prompts by relevance to the question, others by relevance to the
    reference) and of Mixed-R1 (2505.24164: matches, boxes, charts and open answers), for data that says the kind; where
    each task has columns of its own, `combine: {name: weighted_sum, missing: renormalize}` does without. A kind that is
    not in the table is an ERROR of its row, or scores `otherwise`.

    Args:
        table: {kind: {name: …, options…}}: the reward of each kind.
        by: the column of `Prompt.meta` with the kind.
        otherwise: the value of rows whose kind the table does not name, or that have none: what changes nothing, as 1
            in a product.
        scale: `raw`: values as they are; `range`: each reward brought from its declared range to [0, 1].
    """

    table: dict[str, Any]
    by: str = "kind"
    otherwise: float | None = None
    scale: Literal["raw", "range"] = "raw"
    make: Make | None = field(default=None, repr=False)
    differentiable = False

    def __post_init__(self) -> None:
        if self.make is None:
            raise ConfigError("reward 'router' is built of other rewards; use mmalign.load_reward or a run file.")
        if not self.table:
            raise ConfigError("table: is empty; name a reward for each kind, {kind: {name: …}}.")
        self._routes: dict[str, Guarded] = {}
        for kind, spec in self.table.items():
            reward = row_reward(self.make, spec, f"table.{kind}")
            self._routes[str(kind)] = Guarded(str(kind), reward, monitor=True)
            if self.scale == "range" and not all(map(math.isfinite, reward.range)):
                raise ConfigError(f"table.{kind}: has no finite range {reward.range} to be scaled from.")
        self.make = None

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that every reward of the table can judge."""
        return frozenset.intersection(*(frozenset(route.modalities) for route in self._routes.values()))

    @property
    def range(self) -> tuple[float, float]:
        """From the least to the largest of any reward of the table."""
        ranges = [(0.0, 1.0) if self.scale == "range" else route.range for route in self._routes.values()]
        ranges += [] if self.otherwise is None else [(self.otherwise, self.otherwise)]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    @property
    def needs(self) -> tuple[str, ...]:
        """The column with the kind; of those that rewards need, rows of other kinds know nothing."""
        return (self.by,) if self.otherwise is None else ()

    @property
    def batch_dependent(self) -> bool:
        """Whether the value of a row depends on the other rows in any reward of the table."""
        return any(route.traits.batch_dependent for route in self._routes.values())

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs score the same in all of them."""
        return all(route.traits.deterministic for route in self._routes.values())

    def fingerprint(self) -> str:
        """What tells the rewards of the table from any others."""
        return " ".join(f"{kind}={identity(route.reward) or '-'}" for kind, route in self._routes.items())

    def prepare(self) -> None:
        """Load what every reward of the table needs."""
        for route in self._routes.values():
            route.prepare()

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError for a kind that is not in the table, and for rows that its reward can never score."""
        checks = {kind: data_check(route.reward) for kind, route in self._routes.items()}

        def check(prompt: Prompt) -> None:
            if (kind := self._kind(prompt)) is not None:
                checks[kind](prompt)

        return check

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, those of a kind together."""
        scores = self._unrouted(rollout)
        rows: dict[str, list[int]] = {}
        for row, prompt in enumerate(rollout.prompts):
            if scores.status[row] == Status.OK and (kind := self._kind(prompt)) is not None:
                rows.setdefault(kind, []).append(row)
        routed = {row for own in rows.values() for row in own}
        rest = torch.tensor([row for row in range(len(rollout)) if row not in routed], dtype=torch.long)
        pieces = [(rest, scores[rest])] if len(rest) else []
        for kind, own in rows.items():
            index = torch.tensor(own)
            judged = self._routes[kind](rollout[index]).to("cpu")
            span = self._routes[kind].range
            judged = mapped(judged, span) if self.scale == "range" else judged
            failed = judged.status == Status.PARSE_FAIL
            value = judged.value.masked_fill(failed, self.range[0])
            pieces.append((index, replace(judged, value=value, per_step=None)))
        return merge_at(pieces, len(rollout), "cpu").to(device_of(rollout.output))

    def _unrouted(self, rollout: Rollout) -> Scores:
        """The scores of rows that no reward of the table is asked about; of the others they are not read."""
        value = torch.full((len(rollout),), float("nan") if self.otherwise is None else self.otherwise)
        status, info = torch.zeros(len(rollout), dtype=torch.int8), [""] * len(rollout)
        for row, prompt in enumerate(rollout.prompts):
            try:
                if self._kind(prompt) is None and self.otherwise is None:
                    status[row], info[row] = int(Status.NOT_APPLICABLE), f"Prompt.meta has no '{self.by}'"
            except ValueError as error:
                status[row], info[row], value[row] = int(Status.ERROR), str(error), float("nan")
        return Scores(value, status, info=info if any(info) else None)

    def _kind(self, prompt: Prompt) -> str | None:
        """The kind of a row, None where it has none or where `otherwise` is what it scores.

        Raises:
            ValueError: the table does not name it, and there is no `otherwise`.
        """
        value = prompt.meta.get(self.by)
        kind = None if value is None else str(value)
        if kind is None or kind in self._routes:
            return kind
        if self.otherwise is not None:
            return None
        known = ", ".join(self._routes)
        raise ValueError(
            f"Prompt.meta['{self.by}'] is {kind[:40]!r}, which is no kind of the table."
            f"{did_you_mean(kind[:40], self._routes)} Known: {known}"
        )
