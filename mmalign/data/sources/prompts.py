"""Prompts from a file: a text a line, or rows with a prompt column whose other columns become facts for rewards."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.data.file_source import FileSource
from mmalign.data.prompt_rows import PromptRows
from mmalign.data.table import Table, check_rows

__all__ = ["Prompts"]


@dataclass
class Prompts(FileSource[PromptRows]):
    """Prompts from one file, with a part held out for evaluation.

    Args:
        path: .txt (one prompt a line; blank lines and # comments do not count), .jsonl, .csv, .parquet, a folder the
            `datasets` library reads, or "hub:owner/name". Relative paths start at the run file.
        column: the text of the prompt; every other column goes to `Prompt.meta`.
    """

    column: str = "prompt"

    def prompt_column(self) -> str:
        """Return the column that holds the text of the prompt."""
        return self.column

    def of(self, table: Table) -> PromptRows:
        """Return the prompts of a table that was read, in its order; DataError with up to 20 rows that are none."""
        table.require(self.column, *filter(None, self.media_columns().values()))
        rows = PromptRows(table, range(self._count(table)), self.column, self.media_columns())
        if any(rows.media_columns.values()):
            check_rows(rows.made, rows.rows)
        else:
            table.check_texts(self.column, range(len(rows)))
        return rows
