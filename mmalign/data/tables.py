"""Rows out of files: .txt, .jsonl, .csv, .parquet, or a Hugging Face dataset folder; every fault with its place."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmalign.core.errors import DataError, all_faults, did_you_mean, shown
from mmalign.core.files import require_local
from mmalign.core.regular import unreadable, written
from mmalign.core.texts import half_character, parsed, read_text, text_lines

Row = Mapping[str, Any]
MOST_FILES = 100_000  # in a folder that is read as a data set
Made = TypeVar("Made")


@dataclass
class Table:
    """Rows of one file. `lines[i]` is the line row i stands on, where the format has lines."""

    file: str
    rows: Sequence[Row]
    columns: list[str]
    lines: list[int] | None = None
    _latest: tuple[int, Row] = field(default=(-1, {}), init=False, repr=False)

    def row(self, index: int) -> Row:
        """Row `index`, fetched once for all its columns: a data set's own rows are slow to fetch."""
        if self._latest[0] != index:
            self._latest = index, self.rows[index]
        return self._latest[1]

    def place(self, index: int) -> str:
        """Where row `index` is, for messages: "file:line", or "file, row i" (from 0)."""
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


def every(make: Callable[[int], Made], rows: Iterable[int]) -> list[Made]:
    """`make(row)` for all rows, or one DataError with what it says of up to 20 of them."""
    made, faults = [], []
    for row in rows:
        try:
            made.append(make(row))
        except DataError as error:
            faults.append(str(error))
    refuse_rows(faults)
    return made


def read_table(reference: str, relative_to: Path | None = None, split: str = "train") -> Table:
    """The rows that `reference` names.

    Args:
        reference: a path (beside the run file, as given, or `assets/…`) to a file of a known suffix or a folder that
            the `datasets` library reads, or "hub:owner/name" for a dataset of the Hugging Face Hub, with ":config"
            behind it where it has several.
        relative_to: the run file's folder.
        split: of a dataset that has splits.

    Raises:
        DataError: no such file, unknown suffix, undecodable content (every line of it), or no rows at all.
    """
    if reference.startswith("hub:"):
        return _filled(_dataset(reference.removeprefix("hub:"), reference, split))
    try:
        path = require_local(reference, relative_to)
    except DataError as error:
        if not (hub := _on_hub(reference)):
            raise
        raise DataError(f"{error} If a dataset of the Hugging Face Hub is meant, write {hub}.") from None
    if path.is_dir():
        return _filled(_dataset(path, str(path), split))
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
    """One prompt a line, as `text_lines` reads them."""
    numbered = text_lines(path)
    return Table(str(path), [{"prompt": line} for _, line in numbered], ["prompt"], [i for i, _ in numbered])


def _read_jsonl(path: Path) -> Table:
    lines = read_text(path).split("\n")
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    rows = every(lambda number: _json_row(lines[number - 1], f"{path}:{number}"), numbers)
    return Table(str(path), rows, list(dict.fromkeys(key for row in rows for key in row)), numbers)


def _json_row(line: str, place: str) -> Row:
    row = parsed(line, place)
    if not isinstance(row, dict):
        raise DataError(f'{place}: a line must be a JSON object like {{"prompt": …}}, got {shown(row)}.')
    return row


def _read_csv(path: Path) -> Table:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, lines, faults = [], [], []
    try:
        for row in reader:
            if None in row or None in row.values():
                faults.append(
                    f"{path}:{reader.line_num}: the row does not have the {len(reader.fieldnames or [])} fields of the "
                    f"header ({', '.join(reader.fieldnames or [])}): {shown(row)}"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        faults.append(f"{path}:{reader.line_num}: not valid CSV: {error}.")
    refuse_rows(faults)
    names = list(reader.fieldnames or [])
    _require_distinct(names, path)
    return Table(str(path), rows, names, lines)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    if why := unreadable(path):
        raise DataError(f"{written(path)}: {why}.")
    try:
        with ParquetFile(path) as file:  # `read_table` is for folders of files, and imports pandas for them
            table = file.read()
        names, rows = table.column_names, table.to_pylist()
    except Exception as error:  # damaged files raise half a dozen kinds
        reason = str(error).partition("\n")[0].strip(". ") or type(error).__name__
        raise DataError(f"{path}: pyarrow {pyarrow.__version__} cannot read it as parquet: {reason}.") from None
    _require_distinct(names, path)
    return Table(str(path), rows, names)


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


def _refuse_a_tree(folder: Path) -> None:
    """The library searches all of a folder, many times: one that holds a whole disk would never be read."""
    count = 0
    for _, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count > MOST_FILES:
            raise DataError(f"{folder}: holds more than {MOST_FILES:,} files; name the folder of the data set itself.")


def _dataset(source: Path | str, name: str, split: str) -> Table:
    """A folder written by `save_to_disk`, a folder of data files, or a Hub dataset; pictures stay undecoded bytes."""
    import datasets

    if isinstance(source, Path):
        _refuse_a_tree(source)
    place, _, config = (str(source), "", "") if isinstance(source, Path) else source.partition(":")
    try:
        saved = isinstance(source, Path) and any((source / f).exists() for f in ("state.json", "dataset_dict.json"))
        loaded = datasets.load_from_disk(place) if saved else datasets.load_dataset(place, config or None)
    except Exception as error:  # the library raises a dozen kinds; all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "onfig name is missing" in reason and not isinstance(source, Path):
            reason += f" Write it behind the name: {name}:CONFIG."
        raise DataError(f"{name}: datasets {datasets.__version__} cannot load it: {reason}") from None
    if isinstance(loaded, dict):
        if split not in loaded:
            raise DataError(f"{name}: no split '{split}'.{did_you_mean(split, loaded)} Splits: {', '.join(loaded)}.")
        loaded = loaded[split]
    for column, feature in loaded.features.items():
        if type(feature).__name__ in ("Image", "Audio"):
            loaded = loaded.cast_column(column, type(feature)(decode=False))
    return Table(name, loaded, list(loaded.column_names))
