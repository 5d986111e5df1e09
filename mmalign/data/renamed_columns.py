"""Columns under other names, by `data.columns`: one way for every source, and for what rewards and objectives read.

| columns | a row has |
|---|---|
| {prompt: instruction} | the file's 'instruction' as 'prompt' |
| {chosen: "image_path[0]", rejected: "image_path[1]"} | entries of a list |
| {target: "answers.text[0]"} | an entry of an object |
| {references: [caption_1, caption_2]} | a list of those that are there |
| {prompt: "=Describe the sound."} | the text behind =, in every row |

The rows stay lazy, and pictures and sounds in columns of their own are read when they are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from mmalign.core.errors import ConfigError, all_faults, did_you_mean, shown
from mmalign.data.column_rows import ColumnRows
from mmalign.data.lazy_rows import MappedRows
from mmalign.data.table import Row, Table

__all__ = ["ColumnMap", "columns_there", "require_column_map", "with_columns"]

ColumnMap = dict[str, str | list[str]]
_PATH = re.compile(r"(?P<column>[^.\[\]]+)(?P<steps>(\[-?\d+\]|\.[^.\[\]]+)*)")
_STEP = re.compile(r"\[(-?\d+)\]|\.([^.\[\]]+)")


@dataclass(frozen=True)
class _Source:
    """A cell inside a column: the steps into its lists (numbers) and objects (names); or one `text` for all rows."""

    column: str
    steps: tuple[int | str, ...] = ()
    text: str | None = None

    def of(self, row: Row) -> Any:
        """The cell in a row; None where there is none."""
        value = row.get(self.column) if self.text is None else self.text
        for step in self.steps:
            value = _entry(value, step)
        return value


def _entry(value: object, step: int | str) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, Mapping) else None
    return value[step] if isinstance(value, list | tuple) and -len(value) <= step < len(value) else None


def _source(text: str, columns: Sequence[str]) -> _Source | None:
    if text.startswith("="):
        return _Source("", (), text[1:])
    if text in columns:
        return _Source(text)
    if (match := _PATH.fullmatch(text)) is None or match["column"] not in columns:
        return None
    steps = tuple(int(number) if number else name for number, name in _STEP.findall(match["steps"]))
    return _Source(match["column"], steps)


def _is_whole(source: _Source | list[_Source]) -> TypeGuard[_Source]:
    """Is it a column as it is?"""
    return isinstance(source, _Source) and not source.steps and source.text is None


class _Names:
    """How rows are made of others: new names for columns, and cells that are made of them."""

    def __init__(self, sources: Mapping[str, _Source | list[_Source]], columns: Sequence[str]) -> None:
        whole = {name: source for name, source in sources.items() if _is_whole(source)}
        first = {source.column: name for name, source in reversed(whole.items())}  # another name of it is made
        plain = {name: source for name, source in whole.items() if first[source.column] == name}
        self.renamed = {source.column: name for name, source in plain.items()}
        self.back = {name: source.column for name, source in plain.items()}
        self.made = {name: source for name, source in sources.items() if name not in plain}
        self.columns = [self.renamed.get(column, column) for column in columns] + list(self.made)

    def row(self, row: Row) -> dict[str, Any]:
        new = {self.renamed.get(key, key): row[key] for key in row}
        return new | {name: self.cell(name, row) for name in self.made}

    def cell(self, name: str, row: Row) -> Any:
        source = self.made[name]
        if isinstance(source, _Source):
            return source.of(row)
        return [value for each in source if (value := each.of(row)) not in (None, "")]

    def needs(self, name: str) -> set[str]:
        source = self.made[name]
        return {each.column for each in (source if isinstance(source, list) else [source])}


class _MappedColumns(ColumnRows):
    """Rows stored by columns under other names; what is made of heavy columns is heavy too."""

    def __init__(self, rows: ColumnRows, names: _Names) -> None:
        made = {name for name in names.made if names.needs(name) & rows.heavy}

        def under(old: Iterable[str]) -> set[str]:
            return {names.renamed.get(column, column) for column in old}

        super().__init__(len(rows), names.columns, under(rows.heavy) | made, under(rows.media), under(rows.several))
        self._rows, self._names = rows, names

    def light_rows(self, begin: int, end: int) -> list[Row]:
        """Rows of all columns that are not heavy."""
        names, light = self._names, [name for name in self._names.made if name not in self.heavy]
        return [
            {names.renamed.get(key, key): row[key] for key in row} | {name: names.cell(name, row) for name in light}
            for row in self._rows.light_rows(begin, end)
        ]

    def value(self, index: int, column: str) -> Any:
        """One cell of a heavy column."""
        if column in self._names.made:
            return self._names.cell(column, self._rows[index])
        return self._rows.value(index, self._names.back.get(column, column))

    def is_null(self, index: int, column: str) -> bool:
        """Is there nothing in a cell of a heavy column?"""
        return self._rows.is_null(index, self._names.back.get(column, column))

    def entries(self, index: int, column: str) -> int:
        """How many entries has the list in a cell of a heavy column?"""
        return self._rows.entries(index, self._names.back.get(column, column))


def with_columns(table: Table, columns: ColumnMap) -> Table:
    """Return the same rows with columns named anew: `columns` says, by new name, what each is.

    Raises:
        DataError: a column that the file has not, or a new name that another of its columns has.
    """
    if not columns:
        return table
    faults, sources = list[str](), dict[str, _Source | list[_Source]]()
    for name, written in columns.items():
        each = [_source(text, table.columns) for text in ([written] if isinstance(written, str) else written)]
        missing = [text for text, source in zip(_listed(written), each, strict=True) if source is None]
        faults += [
            f"{table.file}: data.columns.{name}: no column {shown(text)}.{did_you_mean(text, table.columns)} Columns "
            f"found: {', '.join(table.columns)}."
            for text in missing
        ]
        known = [source for source in each if source is not None]
        if not missing:
            sources[name] = known[0] if isinstance(written, str) else known
    names = _Names(sources, table.columns)
    faults += [
        f"{table.file}: data.columns.{name}: the file has a column '{name}' of its own; give that one another name, "
        f"e.g. own_{name}: {name}."
        for name in sources
        if name in table.columns and name not in names.renamed
    ]
    if faults:
        raise all_faults(faults)
    rows = table.rows
    mapped = _MappedColumns(rows, names) if isinstance(rows, ColumnRows) else MappedRows(rows, names.row)
    return replace(table, rows=mapped, columns=names.columns)


def columns_there(table: Table, columns: ColumnMap) -> ColumnMap:
    """Return the entries of `columns` that another file's table can follow: its columns are there, the name is not."""
    return {
        name: written
        for name, written in columns.items()
        if name not in table.columns and all(_source(text, table.columns) for text in _listed(written))
    }


def _listed(written: str | list[str]) -> list[str]:
    return [written] if isinstance(written, str) else written


def require_column_map(columns: Mapping[str, Any]) -> None:
    """Raise ConfigError for entries that name no column, or an empty list of them."""
    for name, written in columns.items():
        texts = written if isinstance(written, list) else [written]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ConfigError(f"columns.{name}: is {shown(written, 80)}; name a column of the file, or list some.")
