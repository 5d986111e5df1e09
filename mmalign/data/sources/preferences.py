"""Offline comparisons: rows of prompt, chosen and rejected, where outputs are texts, or files read when needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.core.errors import DataError, shown
from mmalign.data import lazy_media
from mmalign.data.column_rows import ColumnRows
from mmalign.data.contradictions import warn_of_contradictions
from mmalign.data.file_source import FileSource
from mmalign.data.labels import require_label, verdicts
from mmalign.data.pairs import Pairs
from mmalign.data.sampled import sampled
from mmalign.data.table import Table

__all__ = ["Preferences"]

Outputs = Literal["auto", "text", "image", "audio"]


@dataclass
class Preferences(FileSource[Pairs]):
    """Preference pairs from one file, with a part held out by prompt; pictures and sound are decoded by indexing.

    Args:
        prompt, chosen, rejected: their columns; every other column goes to `Prompt.meta`.
        label: column with P(chosen is better) where a file has one: 1, 0 (the two sides are swapped), or 0.5 for a tie.
            Pick-a-Pic is read with prompt: caption, chosen: jpg_0, rejected: jpg_1, label: label_0.
        outputs: what chosen and rejected hold; "auto" decides by the suffixes in the first row. Pictures and sound are
            paths relative to the file (or bytes, in parquet) and are decoded when their row is used.
    """

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    label: str = "label"
    outputs: Outputs = "auto"

    def prompt_column(self) -> str:
        """Return the column that holds the text of the prompt."""
        return self.prompt

    def of(self, table: Table) -> Pairs:
        """Return the comparisons of a table that was read, in its order."""
        columns, media_columns = (self.prompt, self.chosen, self.rejected), self.media_columns()
        about = [column for column in media_columns.values() if column]
        table.require(*columns, *about)
        kind = self._kind(table)
        require_label(table, self.label, self.chosen)
        rows = range(self._count(table))
        looked_into = sampled(rows)
        swapped = verdicts(table, rows, self.label, (self.chosen, self.rejected))
        if kind == "text" or not isinstance(table.rows, ColumnRows):  # else comparing means fetching every picture
            warn_of_contradictions(table, looked_into, columns, about, swapped)
        return Pairs(table, rows, kind, columns, media_columns, self.label)

    def _kind(self, table: Table) -> str:
        """What the two outputs are: "text", "image" or "audio"."""
        first = table.rows[0]
        kinds = {lazy_media.kind_of(table.cell(0, side), table.folder) for side in (self.chosen, self.rejected)}
        if self.outputs != "auto":
            return self.outputs
        if len(kinds) > 1:
            raise DataError(
                f"{table.place(0)}: '{self.chosen}' and '{self.rejected}' look like {' and '.join(sorted(kinds))}; "
                f"say outputs: text, image or audio. The row: {shown(first)}"
            )
        return kinds.pop()
