"""Prompts in the rows of a table, made when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from mmalign.data.asking import Asking, holds_messages
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.row_kinds import RowKind
from mmalign.data.table import Table
from mmalign.data.table_rows import TableRows

__all__ = ["TARGET", "PromptRows", "Texts"]

TARGET = "target"  # the fact that `sft` imitates of prompts


class Texts(LazyRows[str]):
    """One column of some rows of a table."""

    def __init__(self, table: Table, rows: Sequence[int], column: str) -> None:
        super().__init__(lambda at: table.text(at, column), rows)
        self._table, self._column = table, column

    def __iter__(self) -> Iterator[str]:
        """In order; a whole table is read at once."""
        return self._table.texts(self._column, self.places)


@dataclass(frozen=True, eq=False)
class PromptRows(TableRows[Prompt]):
    """Some rows of a table as prompts; the pictures and sounds they are about are decoded when they are looked at."""

    row_kind: ClassVar[RowKind] = "prompts"
    asking: Asking
    answered: bool = False  # conversations hold the answer, too: it is `TARGET` of the prompt's facts

    def prompts(self) -> Sequence[Prompt]:
        """Return the rows themselves."""
        return self

    def units(self) -> Sequence[Any]:
        """Return what rows are told apart by: their texts, where they are about nothing else."""
        plain = not self.asking.about and not self.holds_conversations
        return Texts(self.table, self.rows, self.asking.column) if plain else self

    @property
    def holds_conversations(self) -> bool:
        """Is a row a conversation, as the first one shows?"""
        return holds_messages(self.table, self.asking.column)

    def fault_at(self, at: int) -> str:
        """Return why row `at` cannot be read, as far as headers show; "" if it can."""
        try:
            media = self.made(at).media
        except DataError as error:
            return str(error)
        return next(iter(media.faults()), "") if isinstance(media, LazyMedia) else ""

    def made(self, at: int) -> Prompt:
        """Return the prompt of row `at` of the table; DataError where it is none."""
        meta = self.table.facts(at, self.asking.columns)
        if not self.answered:
            return self.asking.prompt(self.table, at, meta)
        conversation, answer = self.asking.answered(self.table, at)
        return self.asking.of_conversation(self.table, at, conversation, meta | {TARGET: answer})
