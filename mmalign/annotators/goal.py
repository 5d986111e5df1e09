"""Every output is right for the score that it has: pairs behind a goal, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmalign.annotators._rows import Columns, Row, Skipped, built, each_row, scores_by_reward
from mmalign.core.options import must, refuse
from mmalign.objectives._preferences import finite_number
from mmalign.rewards.models.reader import Make

__all__ = ["Goal"]


@dataclass
class Goal:
    """Two rows of each: behind the goal of the chosen output it wins, behind that of the rejected one the other wins.

    Reward-augmented data (Zhang et al. 2024, arXiv 2410.08067): plain `dpo` on them learns outputs of a wanted score,
    and is asked for the highest. A pair whose two scores have one goal gives the first row alone; a pair that the
    scores turn round is exchanged.

    Args:
        goals: the words for the scores, the lowest first.
        edges: the scores at which one goal ends and the next begins, rising, one fewer than goals.
        template: the prompt, with {goal} and {prompt}.
        reward: what scores both outputs, {name: …, options}; by default the columns below hold scores.
        score_columns: the columns with the scores of the chosen and of the rejected output.
    """

    goals: list[str]
    edges: list[float]
    template: str = "{goal} {prompt}"
    reward: dict[str, Any] | None = None
    score_columns: tuple[str, str] = ("chosen_score", "rejected_score")
    make: Make | None = field(default=None, repr=False)

    scorer: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse(
            must(len(set(self.goals)) >= 2, "goals: needs at least two."),
            must(len(set(self.goals)) == len(self.goals), "goals: names one word twice."),
            must(
                len(self.edges) == len(self.goals) - 1 and sorted(set(self.edges)) == self.edges,
                f"edges: needs {max(len(self.goals) - 1, 1)} rising numbers, one fewer than goals.",
            ),
            must("{goal}" in self.template and "{prompt}" in self.template, "template: must name {goal} and {prompt}."),
        )
        if self.reward is not None:
            (self.scorer,) = built(self.make, [self.reward], "reward")
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """One or two rows of each of N."""
        return each_row(rows, self._both)

    def _both(self, row: Row) -> list[Columns]:
        better, worse = row.text("chosen"), row.text("rejected")
        high, low = self._scores(row, better, worse)
        if high < low:
            better, worse, high, low = worse, better, low, high
        known = dict(zip(self.score_columns, (high, low), strict=True))
        return [
            {**row.columns, **known, "prompt": self.prompt_for(row.prompt.text, aim), "chosen": won, "rejected": lost}
            for aim, won, lost in [(high, better, worse), (low, worse, better)]
        ][: 1 if self.goal_of(high) == self.goal_of(low) else 2]

    def goal_of(self, score: float) -> str:
        """The word for a score."""
        return self.goals[sum(score >= edge for edge in self.edges)]

    def prompt_for(self, prompt: str, score: float) -> str:
        """The prompt that asks for a score."""
        return self.template.replace("{goal}", self.goal_of(score)).replace("{prompt}", prompt)

    def _scores(self, row: Row, chosen: str, rejected: str) -> tuple[float, float]:
        if self.scorer is not None:
            scores = scores_by_reward(self.scorer, [row.prompt] * 2, [chosen, rejected])
            if not bool(scores.valid.all()):
                raise Skipped("the reward could not score both sides")
            return float(scores.value[0]), float(scores.value[1])
        high, low = (finite_number(row.columns.get(column)) for column in self.score_columns)
        if high is None or low is None:
            raise Skipped(f"no numbers in {' and '.join(self.score_columns)}")
        return high, low
