"""Rows of tables that are stored by columns: Arrow's and those of `datasets`; a row is made when it is indexed.

Rows in order are made in blocks, single ones alone. Columns of bytes (pictures, sounds) are left where they are until
their cell is looked at: what a row asks is known without reading what it shows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

from mmalign.core.errors import DataError
from mmalign.data.foreign import ArrowSchema, ArrowTable, ArrowType, HubDataset
from mmalign.data.lazy_rows import IndexedRows

Row = Mapping[str, Any]
BLOCK = 256  # rows made at once where they are asked for in order


class StoredMedia(Mapping[str, Any]):
    """A picture or sound as Parquet files and archives hold it, {"bytes", "path"}, fetched at each look."""

    def __init__(self, fetch: Callable[[], Any], path: str | None = None) -> None:
        self._fetch, self._path = fetch, path

    def __getitem__(self, key: str) -> Any:
        if key not in ("bytes", "path"):
            raise KeyError(key)
        if key == "path" and self._path is not None:
            return self._path
        value = self._fetch()
        return value.get(key) if isinstance(value, Mapping) else value if key == "bytes" else None

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


class ColumnRows(IndexedRows[Row]):
    """`heavy` of `columns` hold bytes; of these, `media` are a picture's or sound's alone, `several` lists of such."""

    def __init__(
        self, length: int, columns: Sequence[str], heavy: set[str], media: set[str], several: Set[str] = frozenset()
    ) -> None:
        self.length, self.columns, self.heavy, self.media, self.several = length, list(columns), heavy, media, several
        self._begin, self._block = 0, list[Row]()

    @abstractmethod
    def light_rows(self, begin: int, end: int) -> list[Row]:
        """Rows of all columns that are not heavy."""

    @abstractmethod
    def value(self, index: int, column: str) -> Any:
        """One cell of a heavy column."""

    @abstractmethod
    def is_null(self, index: int, column: str) -> bool:
        """Is there nothing in a cell of a heavy column?"""

    def entries(self, index: int, column: str) -> int:
        """How many entries has the list in a cell of a heavy column?"""
        return len(self.value(index, column))

    def cell(self, index: int, column: str) -> Any:
        """Return a cell as whoever decodes it takes it: bytes stay where they are until they are looked at."""
        if column not in self.media and column not in self.several:
            return self[index].get(column)
        if self.is_null(index, column):
            return None
        if column in self.media:
            return StoredMedia(lambda: self.value(index, column))
        return [
            StoredMedia(partial(self._entry, index, column, number)) for number in range(self.entries(index, column))
        ]

    def _entry(self, index: int, column: str, number: int) -> Any:
        return self.value(index, column)[number]

    def __len__(self) -> int:
        return self.length

    def made(self, index: int) -> Row:
        """Make row `index`; IndexError outside them."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        light = self._light(index)
        return _RowByColumns(self, index, light) if self.heavy else light

    def _light(self, index: int) -> Row:
        behind = self._begin + len(self._block)
        if not self._begin <= index < behind:
            count = BLOCK if index in (0, behind) else 1
            self._block = self.light_rows(index, min(index + count, self.length))
            self._begin = index
        return self._block[index - self._begin]


class _RowByColumns(Mapping[str, Any]):
    """A row whose heavy cells are read when they are looked at."""

    def __init__(self, rows: ColumnRows, index: int, light: Row) -> None:
        self._rows, self._index, self._light = rows, index, light

    def __getitem__(self, key: str) -> Any:
        return self._rows.value(self._index, key) if key in self._rows.heavy else self._light[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.columns)

    def __contains__(self, key: object) -> bool:
        return key in self._rows.columns

    def __len__(self) -> int:
        return len(self._rows.columns)


class ArrowRows(ColumnRows):
    """Rows of an Arrow table, in memory or mapped from a file."""

    def __init__(self, table: ArrowTable, name: str) -> None:
        super().__init__(len(table), table.column_names, *_of_bytes(table.schema))
        self._table, self._name = table, name
        self._few = table.select([name for name in table.column_names if name not in self.heavy])

    def light_rows(self, begin: int, end: int) -> list[Row]:
        """Rows of all columns that are not heavy."""
        if not self._few.column_names:
            return [{} for _ in range(begin, end)]
        try:
            return self._few.slice(begin, end - begin).to_pylist()
        except (ValueError, OverflowError) as error:  # a date before Python's first, for one
            if end - begin > 1:
                return [self.light_rows(at, at + 1)[0] for at in range(begin, end)]
            raise DataError(f"{self._name}, row {begin}: a cell holds what Python cannot: {error}.") from None

    def value(self, index: int, column: str) -> Any:
        """One cell of a heavy column."""
        return self._table.column(column)[index].as_py()

    def is_null(self, index: int, column: str) -> bool:
        """Is there nothing in a cell of a heavy column?"""
        return not self._table.column(column)[index].is_valid

    def entries(self, index: int, column: str) -> int:
        """How many entries has the list in a cell of a heavy column? Nothing of it is copied."""
        return len(self._table.column(column)[index])


class DatasetRows(ColumnRows):
    """Rows of a data set of the `datasets` library, which maps its files into memory."""

    def __init__(self, dataset: HubDataset) -> None:
        super().__init__(len(dataset), dataset.column_names, *_of_bytes(dataset.features.arrow_schema))
        light = [name for name in dataset.column_names if name not in self.heavy]
        self._few = dataset.select_columns(light) if light else None
        self._heavy = {name: dataset.select_columns([name]) for name in self.heavy}
        self._plain = {name: alone.with_format("arrow") for name, alone in self._heavy.items()}

    def light_rows(self, begin: int, end: int) -> list[Row]:
        """Rows of all columns that are not heavy."""
        columns = self._few[begin:end] if self._few is not None else {}
        return [{name: cells[i] for name, cells in columns.items()} for i in range(end - begin)]

    def value(self, index: int, column: str) -> Any:
        """One cell of a heavy column."""
        return self._heavy[column][index][column]

    def is_null(self, index: int, column: str) -> bool:
        """Is there nothing in a cell of a heavy column?"""
        return not self._scalar(index, column).is_valid

    def entries(self, index: int, column: str) -> int:
        """How many entries has the list in a cell of a heavy column? Nothing of it is copied."""
        return len(self._scalar(index, column))

    def _scalar(self, index: int, column: str) -> Any:
        return self._plain[column][index : index + 1].column(0)[0]


def _of_bytes(schema: ArrowSchema) -> tuple[set[str], set[str], set[str]]:
    """The columns with bytes anywhere in them, those that are a picture or a sound, and those that are lists of such.

    A picture is bytes, or {"bytes", "path"}.
    """
    from pyarrow import types

    def binary(kind: ArrowType) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    def anywhere(kind: ArrowType) -> bool:
        return binary(kind) or any(anywhere(kind.field(i).type) for i in range(kind.num_fields))

    def stored(kind: ArrowType) -> bool:
        return binary(kind) or (types.is_struct(kind) and {f.name for f in kind} == {"bytes", "path"})

    def listed(kind: ArrowType) -> bool:
        return (types.is_list(kind) or types.is_large_list(kind)) and stored(kind.value_type)

    heavy = [field for field in schema if anywhere(field.type)]
    several = {field.name for field in heavy if listed(field.type)}
    return {field.name for field in heavy}, {field.name for field in heavy if stored(field.type)}, several


__all__ = ["ArrowRows", "ColumnRows", "DatasetRows", "StoredMedia"]
