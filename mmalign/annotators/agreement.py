"""Of samples ranked by two readers: the best and the worst by the one, labelled by how far both agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmalign.annotators._rows import Columns, Row, Skipped, built, each_row, scores_by_reward
from mmalign.rewards.functional import kendall_tau
from mmalign.rewards.models.reader import Make

__all__ = ["Agreement"]


@dataclass
class Agreement:
    """`chosen` and `rejected` are the best and the worst of the texts in `outputs` by `first`; `label` is (τ + 1) / 2.

    CREAM (Wang et al. 2024, arXiv 2410.12735): τ is Kendall's of the rankings by `first`, this iterate's self-reward
    (`density_ratio` of a run over its start), and `second`, the iterate's before. `agreement` is τ. Rows whose outputs
    are equal, or that `first` ranks nowhere, are skipped.

    Args:
        first: the reward that ranks, {name: …, options}.
        second: the reward that it is compared with.
        outputs: the column with a list of texts.
        hard: write a label of 1 all the same: the pairs alone, for comparison.
    """

    first: dict[str, Any]
    second: dict[str, Any]
    outputs: str = "outputs"
    hard: bool = False
    make: Make | None = field(default=None, repr=False)

    readers: list[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.readers = built(self.make, [self.first, self.second], "first, second")
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows as pairs."""
        return each_row(rows, self._pair)

    def _pair(self, row: Row) -> list[Columns]:
        texts = list(dict.fromkeys(row.texts(self.outputs)))
        own, other = (scores_by_reward(reader, [row.prompt] * len(texts), texts) for reader in self.readers)
        if not bool((own.valid & other.valid).all()):
            raise Skipped("a reward could not score every output")
        if own.value.max() == own.value.min():
            raise Skipped("the first reward ranks no output above another")
        tau = float(kendall_tau(own.value, other.value))
        best, worst = int(own.value.argmax()), int(own.value.argmin())
        gap = float(own.value[best] - own.value[worst])
        columns = {"agreement": round(tau, 6), "gap": round(gap, 6), "label": 1.0 if self.hard else (tau + 1) / 2}
        kept = {name: value for name, value in row.columns.items() if name != self.outputs}
        if columns["label"] == 0:  # `preferences` reads a label of 0 as sides that are the wrong way round
            return [{**kept, **columns, "chosen": texts[worst], "rejected": texts[best], "label": 1.0}]
        return [{**kept, **columns, "chosen": texts[best], "rejected": texts[worst]}]
