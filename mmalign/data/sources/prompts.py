"""Prompts from a file: a text a line, or rows with a prompt column whose other columns become facts for rewards."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.errors import DataError
from mmalign.data.asking import Asking, holds_messages
from mmalign.data.file_source import FileSource
from mmalign.data.prompt_rows import TARGET, PromptRows
from mmalign.data.sampled import sampled
from mmalign.data.table import Table, check_rows

__all__ = ["Prompts"]

ANSWERED = ("messages", "conversations")  # columns that hold the answer, too


@dataclass
class Prompts(FileSource[PromptRows]):
    """Prompts from one file, with a part held out for evaluation.

    Args:
        path: .txt (one prompt a line; blank lines and # comments do not count), .jsonl, .csv, .parquet, a folder the
            `datasets` library reads, or "hub:owner/name". Relative paths start at the run file.
        column: the text of the prompt, or a conversation whose last turn is the user's; every other column goes to
            `Prompt.meta`. A file without it that has `messages` (or `conversations`) is read by these: their last turn
            is the answer and becomes the fact `target`.
    """

    column: str = "prompt"

    def prompt_column(self) -> str:
        """Return the column that holds the text of the prompt."""
        return self.column

    def of(self, table: Table) -> PromptRows:
        """Return the prompts of a table that was read, in its order."""
        asking, answered = Asking(self._column(table), self.media_columns()), False
        table.require(asking.column, *asking.about)
        if holds_messages(table, asking.column):
            asking, answered = asking.for_conversations(table), asking.column in ANSWERED
            if answered and TARGET in table.columns:
                raise DataError(
                    f"{table.file}: has '{asking.column}', whose last turn becomes the fact '{TARGET}', and a column "
                    f"of that name; give it another one by data.columns, e.g. own_{TARGET}: {TARGET}."
                )
        asking.say_unread(table)
        return PromptRows(table, range(self._count(table)), asking, answered)

    def require_rows(self, rows: PromptRows) -> None:
        """DataError with up to 20 rows that are no prompts."""
        if rows.holds_conversations:
            check_rows(rows.made, sampled(rows.rows))
        elif rows.asking.about:
            check_rows(rows.made, rows.rows)
        else:
            rows.table.check_texts(rows.asking.column, range(len(rows)))

    def _column(self, table: Table) -> str:
        """The column of the prompts; where the file has none of that name, that of its conversations."""
        others = [name for name in ANSWERED if name in table.columns]
        return others[0] if others and self.column == "prompt" and "prompt" not in table.columns else self.column
