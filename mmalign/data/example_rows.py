"""Outputs to imitate in the rows of a table: texts, or pictures and sounds that are decoded when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from mmalign.core.errors import DataError, MediaError
from mmalign.core.types import Example, Prompt
from mmalign.data.lazy_media import LazyMedia, Shape, row_media, shape_of
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.row_kinds import RowKind
from mmalign.data.table_rows import TableRows
from mmalign.media.kinds import NOUNS

__all__ = ["ExampleRows"]


@dataclass(frozen=True, eq=False)
class ExampleRows(TableRows[Example]):
    """Some rows of a table as examples; a row is read, and its output decoded, when it is indexed."""

    row_kind: ClassVar[RowKind] = "examples"
    kind: str  # of outputs: "text", "image" or "audio"
    caption: str  # column of the prompt's text
    output: str  # column of what is imitated
    media_columns: Mapping[str, str]  # of what prompts are about, by kind; "" for none

    def made(self, at: int) -> Example:
        """Make the example of row `at`, its output decoded."""
        shown = self.shown(at)
        return Example(self.prompt(at), shown if isinstance(shown, str) else shown[self.kind])

    def prompts(self) -> Sequence[Prompt]:
        """Return the prompt of every row; nothing is decoded."""
        return LazyRows(self.prompt, self.rows)

    def units(self) -> Sequence[Example]:
        """Return what rows are told apart by: caption and output, undecoded; those that share either stay together."""
        return LazyRows(lambda at: Example(self.prompt(at), self.shown(at)), self.rows)

    def prompt(self, at: int) -> Prompt:
        """Return what row `at` of the table asks; DataError where it has no caption."""
        meta = self.table.facts(at, (self.caption, self.output, *self.media_columns.values()))
        media = row_media(self.table, at, self.media_columns)
        return Prompt(self.table.text(at, self.caption), media, meta, self.table.place(at))

    def shown(self, at: int) -> str | LazyMedia:
        """Return the output of row `at`: a text, or what decodes it when looked at; DataError where there is none."""
        if self.kind == "text":
            return self.table.text(at, self.output)
        place = self.table.place(at)
        if (cell := self.table.cell(at, self.output)) is None:
            raise DataError(f"{place}: '{self.output}' is missing; every row needs its {NOUNS[self.kind]}.")
        return LazyMedia({self.kind: cell}, self.table.folder, place, self.table.ground)

    def fault_at(self, at: int) -> str:
        """Return why row `at` cannot be read, as far as headers show; "" if it can."""
        try:
            media = self.prompt(at).media
            shown = self.shown(at)
        except DataError as error:
            return str(error)
        lazy = [each for each in (shown, media) if isinstance(each, LazyMedia)]
        return next((fault for each in lazy for fault in each.faults()), "")

    def faults(self) -> list[str]:
        """Return what keeps rows from being read; of files, headers are read."""
        return [fault for at in self.rows if (fault := self.fault_at(at))]

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yield where each picture or sound stands, and what its header says; others are in `faults`."""
        for at in self.rows if self.kind != "text" else ():
            place, cell = self.table.place(at), self.table.cell(at, self.output)
            with suppress(DataError, MediaError):
                yield place, shape_of(self.kind, cell, self.table.folder, place)
