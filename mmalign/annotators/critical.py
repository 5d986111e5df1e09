"""Which tokens decide: cDPO's estimate of every token of both outputs, to look at and to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mmalign.annotators._rows import Columns, Row, Skipped, each_row
from mmalign.core.options import Positive
from mmalign.objectives._credit import Credit, CreditReaders
from mmalign.rewards.models.reader import Make

__all__ = ["Critical"]


@dataclass
class Critical:
    """`chosen_credit` and `rejected_credit`: s of every token of each text, as `dpo: {credit: …}` takes it.

    cDPO (Lin et al. 2024, arXiv 2411.19943); a low s in the rejected text marks a token that made it wrong, and
    `critical` is the place of the lowest one (from 0).

    Args:
        right: the reader that right outputs were imitated by.
        wrong: the one of wrong outputs.
        kind: "contrast", over the vocabulary; "ratio", of the log-probs alone.
        contrast: κ.
    """

    right: str | dict[str, Any]
    wrong: str | dict[str, Any]
    kind: Literal["contrast", "ratio"] = "contrast"
    contrast: Positive = 1.0
    make: Make | None = field(default=None, repr=False)

    readers: CreditReaders = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options = Credit(right=self.right, wrong=self.wrong, kind=self.kind, contrast=self.contrast)
        self.readers = CreditReaders(self.make, options)
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their columns."""
        return each_row(rows, self._read)

    def _read(self, row: Row) -> list[Columns]:
        won, lost = (self._estimate(row, row.text(side)) for side in ("chosen", "rejected"))
        place = min(range(len(lost)), key=lost.__getitem__)
        return [{**row.columns, "chosen_credit": won, "rejected_credit": lost, "critical": place}]

    def _estimate(self, row: Row, text: str) -> list[float]:
        read = self.readers.right.read([row.prompt], [text])
        with torch.no_grad():
            table = self.readers.estimate(read, {})
        return [round(value, 6) for value in table[0].tolist()]
