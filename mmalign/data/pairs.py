"""Comparisons in the rows of a table, made when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmalign.core.errors import DataError, MediaError
from mmalign.core.types import Preference, Prompt
from mmalign.data import lazy_media
from mmalign.data.asking import Asking
from mmalign.data.labels import label_of
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.pair_forms import Form, compared
from mmalign.data.prompt_rows import Texts
from mmalign.data.row_kinds import RowKind
from mmalign.data.table_rows import TableRows

__all__ = ["Pairs"]


@dataclass(frozen=True, eq=False)
class Pairs(TableRows[Preference]):
    """Some rows of a table as preferences; a row is read, and its pictures and sounds decoded, when it is indexed."""

    row_kind: ClassVar[RowKind] = "preferences"
    kind: str  # of outputs: "text", "image" or "audio"
    columns: tuple[str, str, str]  # of the prompt, the chosen and the rejected output
    asking: Asking
    label: str  # column with P(chosen is better)
    form: Form = "plain"

    def made(self, at: int) -> Preference:
        """Make the preference of row `at`, its outputs decoded."""
        sides = self.columns[:0:-1] if label_of(self.table, at, self.label) == 0 else self.columns[1:]
        return Preference(self.prompt(at), *(self._output(at, column) for column in sides))

    def prompts(self) -> Sequence[Prompt]:
        """Return what was asked in every row; nothing is decoded."""
        return LazyRows(self.prompt, self.rows)

    def units(self) -> Sequence[Any]:
        """Return what rows are told apart by: what their prompts are about, or their texts."""
        plain = not self.asking.about and self.form == "plain"
        return Texts(self.table, self.rows, self.columns[0]) if plain else self.prompts()

    def faults(self) -> list[str]:
        """Return what keeps rows from being read, as far as that shows without opening a file."""
        return [fault for at in self.rows for fault in self._faults_at(at)]

    def fault_at(self, at: int) -> str:
        """Return why row `at` cannot be read, as far as headers show; "" if it can."""
        return next(self._faults_at(at), "")

    def shapes(self) -> Iterator[tuple[str, lazy_media.Shape]]:
        """Where each compared picture or sound stands, and what its header says; others are in `faults`."""
        for at in self.rows if self.kind != "text" else ():
            for column in self.columns[1:]:
                value, folder, place = self._cell(at, column)
                with suppress(DataError, MediaError):
                    yield place, lazy_media.shape_of(self.kind, value, folder, place)

    def _faults_at(self, at: int) -> Iterator[str]:
        try:
            label_of(self.table, at, self.label)
            media = self.prompt(at).media
            yield from media.faults() if isinstance(media, lazy_media.LazyMedia) else ()
        except DataError as error:
            yield str(error)
        for column in self.columns[1:]:
            if self.kind != "text":
                try:
                    lazy_media.shape_of(self.kind, *self._cell(at, column))
                except (DataError, MediaError) as error:
                    yield str(error)
            if self.kind != "text" or self.form != "plain":  # of another form the prompt is not known without them
                continue
            try:
                self.table.text(at, column)
            except DataError as error:
                yield str(error)

    def prompt(self, at: int) -> Prompt:
        """Return what row `at` of the table asks; DataError where it asks nothing."""
        meta = self.table.facts(at, (*self.columns, *self.asking.columns, self.label))
        if (label := label_of(self.table, at, self.label)) is not None:
            meta["label"] = label or 1.0  # of 0 the sides are swapped
        if self.form == "plain":
            return self.asking.prompt(self.table, at, meta)
        question = compared(self.table, at, self.columns, self.form).prompt
        if isinstance(question, str):
            return Prompt(question, lazy_media.row_media(self.table, at, self.asking.media), meta, self.table.place(at))
        whole = self.asking.placed(self.table, at, question)
        return self.asking.of_conversation(self.table, at, whole, meta)

    def _output(self, at: int, column: str) -> Any:
        if self.kind == "text" and self.form == "plain":
            return self.table.text(at, column)
        if self.kind == "text":
            pair = compared(self.table, at, self.columns, self.form)
            return pair.chosen if column == self.columns[1] else pair.rejected
        cell = self._cell(at, column)
        if self.kind == "audio":
            return lazy_media.read_sound(*cell)
        return lazy_media.read_picture(*cell, self.table.ground)

    def _cell(self, at: int, column: str) -> tuple[Any, Path, str]:
        """A cell of a file, the folder where its path starts, and where it stands."""
        place = f"{self.table.place(at)}, '{column}'"
        return self.table.cell(at, column), self.table.folder, place
