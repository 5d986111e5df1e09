"""Some rows of a table as prompts, preferences or examples: what they share, whatever is made of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar, overload

from mmalign.core.types import Prompt
from mmalign.data.held_out import Unit
from mmalign.data.table import Table

__all__ = ["TableRows"]

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class TableRows(Sequence[Made], ABC, Generic[Made]):
    """Rows that are made when they are indexed; a slice of them is of the same kind.

    Args:
        table: which they are of.
        rows: their places in it.
    """

    table: Table
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Made | Self:
        return self.only(self.rows[index]) if isinstance(index, slice) else self.made(self.rows[index])

    def only(self, rows: Sequence[int]) -> Self:
        """Return the same table with other rows."""
        return replace(self, rows=rows)

    @abstractmethod
    def made(self, at: int) -> Made:
        """Make row `at` of the table."""

    @abstractmethod
    def fault_at(self, at: int) -> str:
        """Return why row `at` cannot be read, as far as headers show; "" if it can."""

    @abstractmethod
    def prompts(self) -> Sequence[Prompt]:
        """Return what each row asks; nothing is decoded."""

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """Return what rows are told apart by where some are held out; those that share it stay together."""
