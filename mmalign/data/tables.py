"""Rows out of files: .txt, .jsonl, .csv, .parquet, or a Hugging Face dataset folder; every fault with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, shown
from mmalign.core.files import require_local
from mmalign.core.regular import unreadable, written
from mmalign.data.column_rows import ArrowRows, DatasetRows
from mmalign.data.foreign import ParquetFile
from mmalign.data.hub import DatasetOptions, arrow_file, arrow_path, open_dataset, require_used
from mmalign.data.lines import read_csv, read_jsonl, read_txt
from mmalign.data.media_folders import media_folder
from mmalign.data.table import Table, refuse_rows
from mmalign.data.tars import names_tars, read_tars

IN_MEMORY = 256 * 2**20  # bytes of a Parquet file's cells; those of a larger one are mapped from a file of Arrow


def read_table(
    reference: str,
    relative_to: Path | None = None,
    split: str = "train",
    options: DatasetOptions | None = None,
    skip_bad: bool = False,
) -> Table:
    """Read the rows that `reference` names, each with its place.

    Args:
        reference: a path (beside the run file, as given, or `assets/…`) to a file of a known suffix, a folder of media
            with their metadata or texts, or one that the `datasets` library reads; tar files by a pattern; or
            "hub:owner/name" for a dataset of the Hugging Face Hub, with ":config" behind it where it has several.
        relative_to: the run file's folder.
        split: of a dataset that has splits.
        options: more of what is read of a dataset; its own split counts instead.
        skip_bad: leave what is no row to `Table.broken` instead of raising it.

    Raises:
        DataError: no such file, unknown suffix, undecodable content (every line of it), or no rows at all.
    """
    options = options or DatasetOptions(split)
    if reference.startswith("hub:"):
        return _filled(_dataset(reference.removeprefix("hub:"), reference, options), skip_bad)
    if names_tars(reference):
        require_used(options, reference, "file")
        return _filled(read_tars(reference, relative_to), skip_bad)
    try:
        path = require_local(reference, relative_to)
    except DataError as error:
        if not (hub := _on_hub(reference)):
            raise
        raise DataError(f"{error} If a dataset of the Hugging Face Hub is meant, write {hub}.") from None
    require_used(options, str(path), "folder" if path.is_dir() else "file")
    if path.is_dir():
        return _filled(_folder(path, options), skip_bad)
    if (how := PACKED.get(path.suffix.lower())) is not None:
        raise DataError(f"{path}: is packed, and rows are read where they lie; unpack it first: {how.format(path)}.")
    if path.suffix.lower() not in READERS:
        raise DataError(
            f"{path}: cannot read '{path.suffix}' files; use {', '.join(READERS)}, .tar, or a folder saved by "
            "`datasets`."
        )
    return _filled(READERS[path.suffix.lower()](path), skip_bad)


def _on_hub(reference: str) -> str:
    """How a dataset of the Hub is named whose id or address `reference` looks like; "" where it looks like neither."""
    name = reference.removeprefix("https://").removeprefix("huggingface.co/").removeprefix("datasets/").rstrip("/")
    like_one = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and Path(name).suffix.lower() not in READERS
    return f"hub:{name}" if like_one and not name.startswith(".") else ""


def _filled(table: Table, skip_bad: bool) -> Table:
    if not skip_bad:
        refuse_rows(table.broken)
    if not len(table.rows) and table.broken:
        raise DataError(f"{table.file}: skip_bad leaves no row; the first of {len(table.broken)}: {table.broken[0]}")
    if not len(table.rows):
        raise DataError(
            f"{table.file}: holds no rows; expected at least one (blank lines and # comments do not count)."
        )
    return table


def _read_txt(path: Path) -> Table:
    """One prompt a line."""
    rows, columns, faults = read_txt(path)
    return Table(str(path), rows, columns, rows.lines, broken=faults)


def _read_jsonl(path: Path) -> Table:
    rows, columns, faults = read_jsonl(path)
    return Table(str(path), rows, columns, rows.lines, broken=faults)


def _read_csv(path: Path) -> Table:
    rows, columns, faults = read_csv(path)
    _require_distinct(columns, path)
    return Table(str(path), rows, columns, rows.lines, broken=faults)


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


def _mapped(file: ParquetFile, path: Path) -> Any:
    """The table of a large Parquet file, out of a copy of it in a format that is mapped into memory."""
    import pyarrow

    stat = path.stat()
    key = {"parquet": str(path.absolute()), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    parts: Iterator[Any] = (pyarrow.Table.from_batches([part]) for part in file.iter_batches(batch_size=1024))
    arrow_file(copy := arrow_path(key), file.schema_arrow, parts)
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(copy))).read_all()


def _require_distinct(names: Sequence[str], path: Path) -> None:
    """Of two columns of one name only one would be read, whichever it is."""
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path}: several columns are called {', '.join(map(shown, twice))}; rename them.")


PACKED = {
    ".zip": "unzip {} -d FOLDER",
    ".gz": "gunzip -k {}",
    ".tgz": "gunzip -k -S .tgz {}",
    ".bz2": "bunzip2 -k {}",
    ".xz": "unxz -k {}",
    ".zst": "unzstd {}",
    ".7z": "7z x {}",
}
READERS: dict[str, Callable[[Path], Table]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _folder(path: Path, options: DatasetOptions) -> Table:
    """Media with what is said of them, archives, or what the `datasets` library reads."""
    if options.config or options.data_files:
        return _dataset(path, str(path), options)
    if (table := media_folder(path, options.split, lambda file: READERS[file.suffix](file))) is not None:
        return table
    if any(path.glob("*.tar")):
        return read_tars(str(path / "*.tar"), None)
    return _dataset(path, str(path), options)


def _dataset(source: Path | str, name: str, options: DatasetOptions) -> Table:
    dataset = open_dataset(source, name, options)
    return Table(name, DatasetRows(dataset), list(dataset.column_names))
