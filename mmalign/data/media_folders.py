"""Folders of pictures and sounds: with a metadata file (`imagefolder`, `audiofolder`), or with .txt files beside them.

| what lies in the folder | a row |
|---|---|
| metadata.jsonl, .csv or .parquet | its own; `file_name` is the column "image" or "audio", `x_file_name` is "x" |
| a.png, a.txt; b.png, b.txt | {"image": "a.png", "text": what a.txt says}; a sound is "audio" |

The convention of metadata files is that of the `datasets` library (its "Create an image dataset" page). As there, the
part for a `split` may lie in a folder of its name, and a file name leads nowhere but into the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from mmalign.core.errors import DataError, shown
from mmalign.core.regular import written
from mmalign.core.texts import read_text
from mmalign.data.lazy_rows import IndexedRows, MappedRows
from mmalign.data.table import Table
from mmalign.media.kinds import NOUNS, hinted

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
MOST_MEDIA = 1_000_000  # files in a folder whose names alone are read
Row = Mapping[str, Any]


@dataclass
class Contents:
    """The files of a folder at any depth, but for hidden ones, by their names from there on."""

    folder: Path
    media: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    metadata: list[str] = field(default_factory=list)


def media_folder(folder: Path, split: str, read: Callable[[Path], Table]) -> Table | None:
    """Read the rows of such a folder, metadata files by `read`; None if it is none.

    Raises:
        DataError: several metadata files, names that lead out of the folder, two files for one cell.
    """
    inside = folder / split if split and (folder / split).is_dir() else folder
    contents = _contents(inside)
    if len(contents.metadata) > 1:
        raise DataError(
            f"{written(inside)}: holds several files of metadata ({', '.join(sorted(contents.metadata)[:4])}); name "
            "the folder of one."
        )
    if contents.metadata:
        return _described(contents, read(inside / contents.metadata[0]))
    beside = [name for name in contents.media if _text_beside(name) in contents.texts]
    return _captioned(contents) if beside else None


def _contents(folder: Path) -> Contents:
    contents, count = Contents(folder), 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        count += len(files)
        if count > MOST_MEDIA:
            raise DataError(f"{written(folder)}: holds more than {MOST_MEDIA:,} files; name the folder of the media.")
        for file in sorted(name for name in files if not name.startswith(".")):
            name = os.path.relpath(os.path.join(place, file), folder)  # noqa: PTH118, many
            if file in METADATA:
                contents.metadata.append(name)
            elif file.lower().endswith(".txt"):
                contents.texts.add(name)
            elif hinted(file):
                contents.media.append(name)
    return contents


def _text_beside(name: str) -> str:
    return str(PurePath(name).with_suffix(".txt"))


def _described(contents: Contents, table: Table) -> Table:
    """The rows of a metadata file, its files in columns by what they are."""
    naming = [column for column in table.columns if column == "file_name" or column.endswith("_file_name")]
    if not naming:
        raise DataError(
            f"{table.file}: no column 'file_name' (or 'x_file_name') that says which file a row describes. Columns "
            f"found: {', '.join(table.columns)}."
        )
    names = {column: _column_of(table, column) for column in naming}
    columns = [names.get(column, column) for column in table.columns]
    if twice := [column for column in dict.fromkeys(columns) if columns.count(column) > 1]:
        raise DataError(
            f"{table.file}: two columns are called {', '.join(map(shown, twice))} (file_name is the column of its "
            "pictures or sounds); rename one."
        )
    base = Path(table.file).parent
    prefix = os.path.relpath(base, contents.folder)
    listed, faults, bad = set[str](), list[str](), set[int]()
    for index, row in enumerate(table.rows):
        for column in naming:
            name = row.get(column)
            if not isinstance(name, str) or not name:
                continue  # told where the row is read
            if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "://" in name:
                faults.append(f"{table.place(index)}: '{column}' is {shown(name)}, which leads out of the folder.")
                bad.add(index)
            listed.add(os.path.normpath(os.path.join(prefix, name)))  # noqa: PTH118, many
    unlisted = [name for name in contents.media if name not in listed]
    sentences = [f"{written(contents.folder / name)}: no row of {table.file} names it." for name in unlisted]
    whole = table.without(bad)
    return replace(
        whole,
        rows=MappedRows(whole.rows, partial(_renamed, names)),
        columns=columns,
        base=base,
        unlisted=sentences,
        broken=[*table.broken, *faults],
    )


def _column_of(table: Table, column: str) -> str:
    if column != "file_name":
        return column.removesuffix("_file_name")
    first = next((name for row in table.rows if isinstance(name := row.get(column), str) and name), "")
    return hinted(first) or "image"


def _renamed(names: Mapping[str, str], row: Row) -> Row:
    """A row with other names for some of its columns."""
    return {names.get(key, key): row[key] for key in row}


class CaptionFiles(IndexedRows[Row]):
    """Rows of media with what the .txt file beside them says, read when they are indexed."""

    def __init__(self, folder: Path, media: list[dict[str, str]], texts: set[str]) -> None:
        self._folder, self._media, self._texts = folder, media, texts

    def __len__(self) -> int:
        return len(self._media)

    def name(self, index: int) -> str:
        """Return the name of the first file of a row."""
        return next(iter(self._media[index].values()))

    def made(self, index: int) -> Row:
        """Read row `index`."""
        beside = _text_beside(self.name(index))
        text = {"text": read_text(self._folder / beside).strip()} if beside in self._texts else {}
        return {**self._media[index], **text}


def _captioned(contents: Contents) -> Table:
    rows, faults, twice = dict[str, dict[str, str]](), list[str](), set[str]()
    for name in contents.media:
        kind = hinted(name) or ""
        row = rows.setdefault(_text_beside(name), {})
        if kind in row:
            faults.append(
                f"{written(contents.folder / name)}: one name for two {NOUNS[kind]}s (the other: {row[kind]}), which "
                "have one text; rename one."
            )
            twice.add(_text_beside(name))
        row[kind] = name
    lonely = [f"{written(contents.folder / name)}: no picture or sound of its name." for name in sorted(contents.texts)]
    lonely = [sentence for sentence, name in zip(lonely, sorted(contents.texts), strict=True) if name not in rows]
    made = CaptionFiles(contents.folder, [rows[text] for text in rows if text not in twice], contents.texts)
    kinds = [kind for kind in NOUNS if any(kind in row for row in rows.values())]
    place = lambda at: written(contents.folder / made.name(at))  # noqa: E731
    return Table(str(contents.folder), made, [*kinds, "text"], None, contents.folder, place, lonely, faults)


__all__ = ["media_folder"]
