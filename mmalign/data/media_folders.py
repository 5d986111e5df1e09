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
import unicodedata
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
    texts: dict[str, str] = field(default_factory=dict)  # by `_stem`
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
    beside = [name for name in contents.media if _stem(name) in contents.texts]
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
                contents.texts.setdefault(_stem(name), name)
            elif hinted(file):
                contents.media.append(name)
    return contents


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    """What a file and its text share: the name without its suffix, however its accents are written."""
    return _composed(str(PurePath(name).with_suffix("")))


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
            listed.add(_composed(os.path.normpath(os.path.join(prefix, name))))  # noqa: PTH118, many
    unlisted = [name for name in contents.media if _composed(name) not in listed]
    sentences = [f"{written(contents.folder / name)}: no row of {table.file} names it." for name in unlisted]
    whole = table.without(bad)
    there = {
        _composed(name): name for name in (os.path.relpath(m, prefix) for m in contents.media) if not name.isascii()
    }
    return replace(
        whole,
        rows=MappedRows(whole.rows, partial(_renamed, names, there)),
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


def _renamed(names: Mapping[str, str], there: Mapping[str, str], row: Row) -> Row:
    """A row with other names for some of its columns, and files by the accents that they are stored with."""
    named = {names.get(key, key): row[key] for key in row}
    for column in names.values():
        if isinstance(name := named.get(column), str) and not name.isascii():
            named[column] = there.get(_composed(name), name)
    return named


class CaptionFiles(IndexedRows[Row]):
    """Rows of media with what the .txt file beside them says, read when they are indexed."""

    def __init__(self, folder: Path, media: list[dict[str, str]], texts: Mapping[str, str]) -> None:
        self._folder, self._media, self._texts = folder, media, texts

    def __len__(self) -> int:
        return len(self._media)

    def name(self, index: int) -> str:
        """Return the name of the first file of a row."""
        return next(iter(self._media[index].values()))

    def made(self, index: int) -> Row:
        """Read row `index`."""
        beside = self._texts.get(_stem(self.name(index)))
        text = {} if beside is None else {"text": read_text(self._folder / beside).strip()}
        return {**self._media[index], **text}


def _captioned(contents: Contents) -> Table:
    rows, faults, twice = dict[str, dict[str, str]](), list[str](), set[str]()
    for name in contents.media:
        kind = hinted(name) or ""
        row = rows.setdefault(_stem(name), {})
        if kind in row:
            faults.append(
                f"{written(contents.folder / name)}: one name for two {NOUNS[kind]}s (the other: {row[kind]}), which "
                "have one text; rename one."
            )
            twice.add(_stem(name))
        row[kind] = name
    alone = sorted(name for stem, name in contents.texts.items() if stem not in rows)
    lonely = [f"{written(contents.folder / name)}: no picture or sound of its name." for name in alone]
    made = CaptionFiles(contents.folder, [rows[text] for text in rows if text not in twice], contents.texts)
    kinds = [kind for kind in NOUNS if any(kind in row for row in rows.values())]
    place = lambda at: written(contents.folder / made.name(at))  # noqa: E731
    return Table(str(contents.folder), made, [*kinds, "text"], None, contents.folder, place, lonely, faults)


__all__ = ["media_folder"]
