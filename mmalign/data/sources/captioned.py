"""Pictures, sounds or texts with what they were made for: what a generator is fine-tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmalign.core.errors import DataError, did_you_mean
from mmalign.data.example_rows import ExampleRows
from mmalign.data.file_source import FileSource
from mmalign.data.lazy_media import kind_of
from mmalign.data.table import Table, refuse_rows
from mmalign.media.kinds import NOUNS

__all__ = ["Captioned"]

Outputs = Literal["auto", "text", "image", "audio"]


@dataclass
class Captioned(FileSource[ExampleRows]):
    """Examples to imitate: a caption and its picture, sound or text. Nothing is decoded before its row is used.

    | path | a row |
    |---|---|
    | a folder with metadata.jsonl, .csv or .parquet | `file_name` and its caption, as `imagefolder` and `audiofolder` |
    | a folder with .txt files beside its media | `a.png` and what `a.txt` says |
    | .jsonl, .csv, .parquet | a column of paths, bytes or {"bytes", "path"}, and one of captions |
    | .tar, "a-{000..009}.tar", "*.tar" | WebDataset: `key.jpg` with `key.txt` or `key.json` |
    | hub:owner/name | a dataset of the Hub |

    Args:
        caption: column of the captions; every other column goes to `Prompt.meta`.
        output: column of what is imitated; "" takes the one that holds pictures or sounds.
        outputs: what it holds; "auto" decides by its first cells.
    """

    caption: str = "text"
    output: str = ""
    outputs: Outputs = "auto"

    def prompt_column(self) -> str:
        """Return the column that holds the text of the prompt."""
        return self.caption

    def left_out(self, table: Table) -> None:
        """Say nothing: files without a caption and captions without a file are told with the rows."""

    def of(self, table: Table) -> ExampleRows:
        """Return the examples of a table that was read, in its order."""
        self._require_caption(table)
        about = [column for column in self.media_columns().values() if column]
        table.require(*about, *([self.output] if self.output else []))
        count = range(self._count(table))
        output, kind = self._output(table)
        return ExampleRows(table, count, kind, self.caption, output, self.media_columns())

    def lonely(self, table: Table) -> Sequence[str]:
        """Return sentences on files without a caption, and captions without a file."""
        return table.unlisted

    def require_rows(self, rows: ExampleRows) -> None:
        """DataError for rows without a caption or an output, and for files of no row."""
        refuse_rows([*_incomplete(rows), *(f"{sentence} {_WAY}" for sentence in rows.table.unlisted)])

    def _require_caption(self, table: Table) -> None:
        if self.caption in table.columns:
            return
        raise DataError(
            f"{table.file}: no column '{self.caption}' with the captions.{did_you_mean(self.caption, table.columns)} "
            f"Set data.caption to one of its columns: {', '.join(table.columns)}."
        )

    def _output(self, table: Table) -> tuple[str, str]:
        """The column of the outputs, and what it holds."""
        columns = [self.output] if self.output else [c for c in (*NOUNS, *table.columns) if c in table.columns]
        taken = {self.caption, *self.media_columns().values()}
        for column in dict.fromkeys(column for column in columns if column not in taken):
            _, cells = table.first_cells(column)
            kind = kind_of(cells[0], table.folder) if cells else "text"
            if self.output:
                return column, kind if self.outputs == "auto" else self.outputs
            if kind == self.outputs or (self.outputs == "auto" and kind != "text"):
                return column, kind
        raise DataError(
            f"{table.file}: no column holds pictures or sounds; set data.output to the one to imitate. Columns found: "
            f"{', '.join(table.columns)}."
        )


_WAY = "Add what is missing, or set data.skip_bad: true to leave it out."


def _incomplete(rows: ExampleRows) -> list[str]:
    """A sentence for every row without a caption or an output; no file of media is opened."""
    faults = []
    for at in rows.rows:
        try:
            rows.table.text(at, rows.caption)
            rows.shown(at)
        except DataError as error:
            faults.append(str(error))
    return faults
