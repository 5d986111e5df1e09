"""Ordered lists as pairs: every text beats those behind it, or the next one alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from mmalign.annotators._rows import Columns, Row, Skipped, each_row

__all__ = ["Ranks"]


@dataclass
class Ranks:
    """The pairs of a list of texts, best first: `chosen`, `rejected`, and `gap`, how many places lie between them.

    Instruct-GPT's pairs of ranked outputs (Ouyang et al. 2022, arXiv 2203.02155), and the ordered triples of
    ReMoDetect (Lee et al. 2024, arXiv 2405.17382). Equal texts make no pair.

    Args:
        ranked: the column with the list.
        pairs: "all" of them, or "next": neighbours alone.
    """

    ranked: str = "ranked"
    pairs: Literal["all", "next"] = "all"

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The pairs of each of N rows."""
        return each_row(rows, self._of)

    def _of(self, row: Row) -> list[Columns]:
        texts = row.texts(self.ranked)
        kept = {name: value for name, value in row.columns.items() if name != self.ranked}
        places = [(i, j) for i, j in combinations(range(len(texts)), 2) if self.pairs == "all" or j == i + 1]
        made = [
            {**kept, "chosen": texts[i], "rejected": texts[j], "gap": j - i} for i, j in places if texts[i] != texts[j]
        ]
        if not made:
            raise Skipped("no two neighbours differ")
        return made
