"""How strong each preference is, by a vote of reward models: what to flip, to soften, and to give a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmalign.annotators._rows import Columns, Row, Skipped, built, scores_by_reward
from mmalign.core.options import NotNegative, must, refuse
from mmalign.core.types import Scores
from mmalign.rewards.models.reader import Make

__all__ = ["Strength"]


@dataclass
class Strength:
    """μ, the mean over rewards of r(chosen) - r(rejected), and its deviation σ, as `strength` and `strength_std`.

    Secrets of RLHF II (Wang et al. 2024, arXiv 2401.06080, sec. 2): reward models that were fitted to resamples of the
    pairs vote. With μ < -`flip` the sides are exchanged (`flipped`); with |μ| <= `soft` the `label` becomes
    1 - `smoothing`; with μ > `soft` the pair's `margin` is μ, if `margins`. `gap` is |μ| after an exchange, which `dpo`
    reads (`label: gap`, `beta_of_gap`). A row that a reward cannot score is skipped.

    Args:
        rewards: the voters, each {name: …, options}: fitted reward models, or any rewards of rows.
        flip: how far below 0 the mean must lie for the sides to be exchanged.
        soft: up to which size of the mean the label is soft.
        smoothing: how likely the rejected side is the better one there.
        margins: whether strong pairs get a margin, for `bradley_terry`.
    """

    rewards: list[dict[str, Any]]
    flip: NotNegative = 0.0
    soft: NotNegative = 0.0
    smoothing: NotNegative = 0.2
    margins: bool = False
    make: Make | None = field(default=None, repr=False)

    voters: list[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse(
            must(min(self.flip, self.soft) >= 0, "flip, soft: must be at least 0."),
            must(0 <= self.smoothing <= 0.5, f"smoothing: {self.smoothing} must lie in [0, 0.5]."),
        )
        self.voters = built(self.make, self.rewards, "rewards")
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their columns."""
        gaps, valid = zip(*(self._gap(voter, rows) for voter in self.voters), strict=True)
        table, known = torch.stack(gaps, 1), torch.stack(valid, 1).all(1)
        mean, std = table.mean(1), table.std(1, correction=0)
        return [
            [self._columns(row, float(mu), float(sigma))] if ok else Skipped("a reward could not score both sides")
            for row, mu, sigma, ok in zip(rows, mean, std, known.tolist(), strict=True)
        ]

    @staticmethod
    def _gap(voter: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        sides: list[Scores] = [
            scores_by_reward(voter, [row.prompt for row in rows], [str(row.columns.get(side) or "") for row in rows])
            for side in ("chosen", "rejected")
        ]
        return sides[0].value - sides[1].value, sides[0].valid & sides[1].valid

    def _columns(self, row: Row, mean: float, std: float) -> Columns:
        columns = dict(row.columns)
        columns |= {"strength": round(mean, 6), "strength_std": round(std, 6), "flipped": mean < -self.flip}
        if columns["flipped"]:
            columns |= {"chosen": row.columns["rejected"], "rejected": row.columns["chosen"]}
        lead = -mean if columns["flipped"] else mean
        columns["gap"] = round(abs(mean) if columns["flipped"] else mean, 6)
        columns["label"] = 1 - self.smoothing if abs(mean) <= self.soft else 1.0
        if self.margins:
            columns["margin"] = round(lead, 6) if lead > self.soft else 0.0
        return columns
