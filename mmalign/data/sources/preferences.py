"""Offline comparisons: rows of prompt, chosen and rejected, where outputs are texts, or files read when needed."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmalign.core.errors import DataError, shown
from mmalign.data import lazy_media
from mmalign.data.asking import Asking
from mmalign.data.column_rows import ColumnRows
from mmalign.data.contradictions import warn_of_contradictions
from mmalign.data.file_source import FileSource
from mmalign.data.labels import OWN, require_label, verdicts
from mmalign.data.pair_forms import Form, form_of
from mmalign.data.pairs import Pairs
from mmalign.data.sampled import sampled
from mmalign.data.table import Table

__all__ = ["Preferences"]

Outputs = Literal["auto", "text", "image", "audio"]
JUDGED = "has_label"  # of Pick-a-Pic: was a verdict given?

log = logging.getLogger("mmalign")


@dataclass
class Preferences(FileSource[Pairs]):
    """Preference pairs from one file, with a part held out by prompt; pictures and sound are decoded by indexing.

    Args:
        prompt, chosen, rejected: their columns; every other column goes to `Prompt.meta`. Texts, or conversations:
            chosen and rejected then end with the answer, and the turns before it, the same on both sides, are the
            prompt, unless it stands in its own column. Without that column texts have in common what they begin with.
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
        columns, asking = (self.prompt, self.chosen, self.rejected), Asking(self.prompt, self.media_columns())
        kind = self._kind(table)
        form: Form = form_of(table, columns) if kind == "text" else "plain"
        if form in ("messages", "transcript"):
            asking = asking.for_conversations(table)
        asking.say_unread(table, (self.chosen, self.rejected))
        table.require(*(columns if form == "plain" else columns[1:]), *asking.about)
        require_label(table, self.label, self.chosen)
        rows = self._judged(table)
        looked_into = sampled(rows)
        swapped = verdicts(table, rows, self.label, (self.chosen, self.rejected))
        if kind == "text" or not isinstance(table.rows, ColumnRows):  # else comparing means fetching every picture
            warn_of_contradictions(table, looked_into, columns, asking.about, swapped)
        return Pairs(table, rows, kind, columns, asking, self.label, form)

    def require_rows(self, rows: Pairs) -> None:
        """Nothing: the run's checks read the rows that are looked into, headers of their files included."""

    def _judged(self, table: Table) -> Sequence[int]:
        """The rows that are read: of a file that says which have a verdict, those."""
        rows = range(self._count(table))
        if JUDGED not in table.columns or self.label == OWN or not self.label:
            return rows
        judged = array("q", (at for at in rows if table.row(at).get(JUDGED) not in (False, 0)))
        if len(judged) < len(rows):
            log.warning(
                "%s: %d of %d comparisons have no verdict ('%s' is false) and are left out.",
                *(table.file, len(rows) - len(judged), len(rows), JUDGED),
            )
        if not judged:
            raise DataError(f"{table.file}: '{JUDGED}' is false in every row; there is nothing to learn from.")
        return judged if len(judged) < len(rows) else rows

    def _kind(self, table: Table) -> str:
        """What the two outputs are: "text", "image" or "audio"."""
        if self.chosen not in table.columns or self.rejected not in table.columns:
            form_of(table, (self.prompt, self.chosen, self.rejected))  # says what is missing
        at, cells = table.first_cells(self.chosen, self.rejected)
        kinds = {lazy_media.kind_of(cell, table.folder) for cell in cells} or {"text"}
        if self.outputs != "auto":
            return self.outputs
        if len(kinds) > 1:
            raise DataError(
                f"{table.place(at)}: '{self.chosen}' and '{self.rejected}' look like {' and '.join(sorted(kinds))}; "
                f"say outputs: text, image or audio. The row: {shown(table.row(at))}"
            )
        return kinds.pop()
