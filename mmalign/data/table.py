"""Rows of one file, made when they are indexed, with their places for messages."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, all_faults, did_you_mean, shown
from mmalign.core.texts import half_character
from mmalign.data.column_rows import ColumnRows
from mmalign.data.lazy_rows import LazyRows

Row = Mapping[str, Any]
Ground = tuple[float, float, float]  # red, green and blue in [0, 1]
WHITE: Ground = (1.0, 1.0, 1.0)
LOOKED_AT = 20  # rows whose cells say what a column holds


@dataclass
class Table:
    """Rows of one file. `lines[i]` is the line row i stands on, where the format has lines.

    `rows` makes a row when it is indexed. Relative paths in its cells start at `base`, the file's own folder if None.
    `place_of` says where a row is that stands on no line. `unlisted` has a sentence for each file of a folder that is
    of no row, `broken` one for each line or member that no row can be made of. `ground` is what transparency of its
    pictures is laid over.
    """

    file: str
    rows: Sequence[Row]
    columns: list[str]
    lines: Sequence[int] | None = None
    base: Path | None = None
    place_of: Callable[[int], str] | None = None
    unlisted: Sequence[str] = ()
    broken: Sequence[str] = ()
    ground: Ground = WHITE
    _typical: dict[tuple[str, ...], Row] = field(default_factory=dict, init=False, repr=False)
    _latest: tuple[int, Row] = field(default=(-1, {}), init=False, repr=False)

    def row(self, index: int) -> Row:
        """Row `index`, fetched once for all its columns: a data set's own rows are slow to fetch."""
        if self._latest[0] != index:
            self._latest = index, self.rows[index]
        return self._latest[1]

    @cached_property
    def first(self) -> Row:
        """The first row, which says what form the others have."""
        return self.rows[0]

    def typical(self, *columns: str) -> Row:
        """The first of some rows whose cells in `columns` all say something; the first row may be a broken one."""
        if columns not in self._typical:
            rows = (self.rows[at] for at in self._readable())
            full = (row for row in rows if all(_says_something(row.get(column)) for column in columns))
            self._typical[columns] = next(full, self.first)
        return self._typical[columns]

    def first_cells(self, *columns: str) -> tuple[int, list[Any]]:
        """Return which of some rows is the first that has all of `columns`, else any of them, and these cells."""
        rows = [(at, [self.cell(at, column) for column in columns]) for at in self._readable()]
        there = [(at, [cell for cell in cells if cell is not None and cell != ""]) for at, cells in rows]
        return max(there, key=lambda row: len(row[1]), default=(0, []))

    def _readable(self) -> Iterator[int]:
        """The first rows, but for those that cannot be read."""
        for at in range(min(LOOKED_AT, len(self.rows))):
            try:
                self.rows[at]
            except DataError:  # told where all rows are read
                continue
            yield at

    @property
    def folder(self) -> Path:
        """Where relative paths in cells start."""
        return self.base or Path(self.file).parent

    def cell(self, index: int, column: str) -> Any:
        """A cell for whoever decodes it; None where there is none. Stored bytes are fetched when they are looked at."""
        if isinstance(self.rows, ColumnRows):
            return self.rows.cell(index, column) if column in self.columns else None
        return self.row(index).get(column)

    def texts(self, column: str, rows: Sequence[int]) -> Iterator[str]:
        """`text` of each row; all from the first one on are read at once."""
        if not isinstance(rows, range) or rows != range(len(rows)):
            yield from (self.text(index, column) for index in rows)
            return
        for index, row in zip(rows, self.rows, strict=False):
            value = row.get(column)
            plain = isinstance(value, str) and value.isascii() and value and not value.isspace()
            yield str(value) if plain else self.text(index, column)

    def check_texts(self, column: str, rows: range) -> None:
        """DataError with up to 20 of the rows, from the first on, that have no text in `column`."""
        texts, faults, at = self.texts(column, rows), list[str](), 0
        while at < len(rows):
            try:
                for _ in texts:
                    at += 1
                break
            except DataError as error:
                faults.append(str(error))
                at += 1
                texts = (self.text(index, column) for index in rows[at:])
        refuse_rows(faults)

    def facts(self, index: int, without: Container[str]) -> dict[str, Any]:
        """Return the other cells of row `index`, which are looked at."""
        row = self.row(index)
        return {key: row[key] for key in row if key not in without}

    def place(self, index: int) -> str:
        """Return where row `index` is, for messages: "file:line", or "file, row i" (from 0)."""
        if self.place_of is not None:
            return self.place_of(index)
        return f"{self.file}:{self.lines[index]}" if self.lines else f"{self.file}, row {index}"

    def without(self, bad: Container[int]) -> Table:
        """Return the same table without some rows; places in messages stay."""
        places = [at for at in range(len(self.rows)) if at not in bad]
        if len(places) == len(self.rows):
            return self
        rows, place = LazyRows(self.rows.__getitem__, places), LazyRows(self.place, places)
        return replace(self, rows=rows, lines=None, place_of=place.__getitem__)

    def require(self, *columns: str) -> None:
        """DataError unless every name in `columns` is a column; shows the columns found and the first row."""
        for column in columns:
            if column not in self.columns:
                raise DataError(
                    f"{self.file}: no column '{column}'.{did_you_mean(column, self.columns)} "
                    f"Columns found: {', '.join(self.columns)}. First row: {shown(self.rows[0])}"
                )

    def text(self, index: int, column: str) -> str:
        """The string in `column` of row `index`; anything else, or only blanks, is a DataError that shows the row."""
        row = self.row(index)
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            if half := half_character(value):
                raise DataError(
                    f"{self.place(index)}: '{column}' holds {half}, half of a character, which no model reads. "
                    f"The row: {shown(row)}"
                )
            return value
        fault = "missing" if column not in row else f"{shown(value)}, not a text" if value else f"empty ({value!r})"
        raise DataError(f"{self.place(index)}: '{column}' is {fault}. The row: {shown(row)}")


def _says_something(cell: object) -> bool:
    return isinstance(cell, str | list | tuple | Mapping) and bool(cell)


def refuse_rows(faults: Sequence[str]) -> None:
    """Raise DataError with the first 20 of `faults`, if there are any."""
    if faults:
        raise all_faults(faults)


def check_rows(make: Callable[[int], Any], rows: Iterable[int]) -> None:
    """`make(row)` for all rows, holding none; DataError with what it says of up to 20 of them."""
    faults = []
    for row in rows:
        try:
            make(row)
        except DataError as error:
            faults.append(str(error))
    refuse_rows(faults)


__all__ = ["LOOKED_AT", "Row", "Table", "check_rows", "refuse_rows"]
