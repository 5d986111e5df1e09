"""Prompts from a file: a text a line, or rows with a prompt column whose other columns become facts for rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.core.types import Prompt
from mmalign.data.file_source import FileSource
from mmalign.data.lazy_media import row_media
from mmalign.data.tables import Table, every

__all__ = ["Prompts"]


@dataclass
class Prompts(FileSource[list[Prompt]]):
    """Prompts from one file, with a part held out for evaluation.

    Args:
        path: .txt (one prompt a line; blank lines and # comments do not count), .jsonl, .csv, .parquet, a folder the
            `datasets` library reads, or "hub:owner/name". Relative paths start at the run file.
        column: the text of the prompt; every other column goes to `Prompt.meta`.
    """

    column: str = "prompt"

    def prompt_column(self) -> str:
        """The column that holds the text of the prompt."""
        return self.column

    def of(self, table: Table) -> list[Prompt]:
        """The prompts of a table that was read, in its order; DataError with up to 20 rows that are none."""
        table.require(self.column, *filter(None, self.media_columns().values()))
        return every(lambda i: self._prompt(table, i), range(self._count(table)))

    def prompts(self, rows: list[Prompt]) -> Sequence[Prompt]:
        """The prompts themselves."""
        return rows

    def only(self, rows: list[Prompt], indices: Sequence[int]) -> list[Prompt]:
        """The prompts at `indices`."""
        return [rows[i] for i in indices]

    def _prompt(self, table: Table, index: int) -> Prompt:
        text, media_columns = table.text(index, self.column), self.media_columns()
        meta = {k: v for k, v in table.row(index).items() if k not in (self.column, *media_columns.values())}
        return Prompt(text, row_media(table, index, media_columns), meta, table.place(index))
