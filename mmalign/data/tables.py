"""Rows out of files: .txt, .jsonl, .csv, .parquet, or a Hugging Face dataset folder; every fault with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, all_faults, did_you_mean, shown
from mmalign.core.files import require_local
from mmalign.core.regular import unreadable, written
from mmalign.core.texts import half_character
from mmalign.data.column_rows import ArrowRows, ColumnRows, DatasetRows
from mmalign.data.hub import DatasetOptions, arrow_file, open_dataset, require_used
from mmalign.data.lines import read_csv, read_jsonl, read_txt

Row = Mapping[str, Any]
IN_MEMORY = 256 * 2**20  # bytes of a Parquet file's cells; those of a larger one are mapped from a file of Arrow


@dataclass
class Table:
    """Rows of one file. `lines[i]` is the line row i stands on, where the format has lines.

    `rows` makes a row when it is indexed. Relative paths in its cells start at `base`, the file's own folder if None.
    """

    file: str
    rows: Sequence[Row]
    columns: list[str]
    lines: Sequence[int] | None = None
    base: Path | None = None
    _latest: tuple[int, Row] = field(default=(-1, {}), init=False, repr=False)

    def row(self, index: int) -> Row:
        """Row `index`, fetched once for all its columns: a data set's own rows are slow to fetch."""
        if self._latest[0] != index:
            self._latest = index, self.rows[index]
        return self._latest[1]

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
        return f"{self.file}:{self.lines[index]}" if self.lines else f"{self.file}, row {index}"

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


def read_table(
    reference: str,
    relative_to: Path | None = None,
    split: str = "train",
    options: DatasetOptions | None = None,
) -> Table:
    """Read the rows that `reference` names, each with its place.

    Args:
        reference: a path (beside the run file, as given, or `assets/…`) to a file of a known suffix or a folder that
            the `datasets` library reads, or "hub:owner/name" for a dataset of the Hugging Face Hub, with ":config"
            behind it where it has several.
        relative_to: the run file's folder.
        split: of a dataset that has splits.
        options: more of what is read of a dataset; its own split counts instead.

    Raises:
        DataError: no such file, unknown suffix, undecodable content (every line of it), or no rows at all.
    """
    options = options or DatasetOptions(split)
    if reference.startswith("hub:"):
        return _filled(_dataset(reference.removeprefix("hub:"), reference, options))
    try:
        path = require_local(reference, relative_to)
    except DataError as error:
        if not (hub := _on_hub(reference)):
            raise
        raise DataError(f"{error} If a dataset of the Hugging Face Hub is meant, write {hub}.") from None
    require_used(options, str(path), "folder" if path.is_dir() else "file")
    if path.is_dir():
        return _filled(_dataset(path, str(path), options))
    if path.suffix.lower() not in READERS:
        raise DataError(
            f"{path}: cannot read '{path.suffix}' files; use {', '.join(READERS)}, or a folder saved by `datasets`."
        )
    return _filled(READERS[path.suffix.lower()](path))


def _on_hub(reference: str) -> str:
    """How a dataset of the Hub is named whose id or address `reference` looks like; "" where it looks like neither."""
    name = reference.removeprefix("https://").removeprefix("huggingface.co/").removeprefix("datasets/").rstrip("/")
    like_one = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and Path(name).suffix.lower() not in READERS
    return f"hub:{name}" if like_one and not name.startswith(".") else ""


def _filled(table: Table) -> Table:
    if not len(table.rows):
        raise DataError(
            f"{table.file}: holds no rows; expected at least one (blank lines and # comments do not count)."
        )
    return table


def _read_txt(path: Path) -> Table:
    """One prompt a line."""
    rows, columns = read_txt(path)
    return Table(str(path), rows, columns, rows.lines)


def _read_jsonl(path: Path) -> Table:
    rows, columns, faults = read_jsonl(path)
    refuse_rows(faults)
    return Table(str(path), rows, columns, rows.lines)


def _read_csv(path: Path) -> Table:
    rows, columns, faults = read_csv(path)
    refuse_rows(faults)
    _require_distinct(columns, path)
    return Table(str(path), rows, columns, rows.lines)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    if why := unreadable(path):
        raise DataError(f"{written(path)}: {why}.")
    try:
        with ParquetFile(path) as file:  # `read_table` is for folders of files, and imports pandas for them
            names = file.schema_arrow.names
            _require_distinct(names, path)
            cells = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            table = file.read() if cells <= IN_MEMORY else _mapped(file, path)
            table.validate(full=True)
    except DataError:
        raise
    except Exception as error:  # damaged files raise half a dozen kinds
        reason = str(error).partition("\n")[0].strip(". ") or type(error).__name__
        raise DataError(f"{path}: pyarrow {pyarrow.__version__} cannot read it as parquet: {reason}.") from None
    return Table(str(path), ArrowRows(table, str(path)), names)


def _mapped(file: Any, path: Path) -> Any:
    """The table of a large Parquet file, out of a copy of it in a format that is mapped into memory."""
    import pyarrow

    stat = path.stat()
    key = {"parquet": str(path.absolute()), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    parts: Iterator[Any] = (pyarrow.Table.from_batches([part]) for part in file.iter_batches(batch_size=1024))
    copy = arrow_file(key, file.schema_arrow, parts)
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(copy))).read_all()


def _require_distinct(names: Sequence[str], path: Path) -> None:
    """Of two columns of one name only one would be read, whichever it is."""
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path}: several columns are called {', '.join(map(shown, twice))}; rename them.")


READERS: dict[str, Callable[[Path], Table]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _dataset(source: Path | str, name: str, options: DatasetOptions) -> Table:
    dataset = open_dataset(source, name, options)
    return Table(name, DatasetRows(dataset), list(dataset.column_names))
