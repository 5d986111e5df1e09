"""WebDataset: members of tar files whose names differ only behind the first dot are one row.

| member | its cell |
|---|---|
| key.jpg, key.png, …; key.flac, key.wav, … | "image"; "audio": bytes, read from the archive when they are looked at |
| key.txt | "text" |
| key.json | each entry of the object under its own name |
| any other, key.x | "x": bytes |

`__key__` is the name up to the dot. The archives are indexed once by their headers (WebDataset's own convention, "The
WebDataset Format" in its documentation); nothing is unpacked.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, all_faults, shown
from mmalign.core.regular import unreadable, written
from mmalign.core.texts import parsed
from mmalign.data.column_rows import ColumnRows
from mmalign.data.table import Table
from mmalign.media.bounds import BYTES
from mmalign.media.kinds import hinted

MOST_SHARDS = 100_000
_TEXT, _JSON = "text", ".json"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def names_tars(reference: str) -> bool:
    """Return whether it names tar files, one or by a pattern."""
    return reference.lower().endswith(".tar")


def shards(reference: str, relative_to: Path | None) -> list[Path]:
    """Return the archives that a name with braces ("{000..009}", "{a,b}") and wildcards stands for, in order.

    Raises:
        DataError: there is none, or one is missing.
    """
    paths, missing = list[Path](), list[str]()
    for name in _expanded(reference):
        places = [base / name for base in ([relative_to] if relative_to else []) if not Path(name).is_absolute()]
        for place in [*places, Path(name)]:
            wild = any(letter in name for letter in "*?[")
            here = [Path(path) for path in sorted(glob.glob(str(place)))] if wild else [place] * place.exists()  # noqa: PTH207
            if here:
                paths += here
                break
        else:
            missing.append(f"{name}: no such archive.")
    if missing:
        raise all_faults(missing)
    return paths


def _expanded(pattern: str) -> list[str]:
    parts = _BRACES.split(pattern)  # what stands in braces is every second one
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > MOST_SHARDS:
        raise DataError(f"{pattern}: stands for {count:,} archives; at most {MOST_SHARDS:,} are read.")
    return ["".join(each) for each in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    if not (ends := _RANGE.fullmatch(inside)):
        return inside.split(",")
    first, last = ends.groups()
    if int(last) - int(first) > MOST_SHARDS:
        raise DataError(f"{{{inside}}}: stands for more than {MOST_SHARDS:,} archives.")
    width = len(first) if first.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]


class TarRows(ColumnRows):
    """Rows of tar files; of each member, where it stands is held."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(0, [], set(), set())
        self.paths = paths
        self.keys, self._shard, self._first = list[str](), array("q"), array("q")
        self._suffix, self._begin_of, self._size = array("q"), array("q"), array("q")
        self._suffixes: dict[str, int] = {}
        self._stamps: list[tuple[int, int]] = []
        self.broken = list[str]()
        self._bad = set[int]()  # rows that a sentence of `broken` is about
        names: dict[str, None] = {"__key__": None}
        for number, path in enumerate(paths):
            names |= self._index(number, path)
        self._leave_out_bad()
        self.length, self.columns = len(self.keys), list(names)
        self.heavy = {column for suffix in self._suffixes if (column := _column(suffix)) not in (_TEXT, _JSON)}
        self.media = set(self.heavy)
        self._named = list(self._suffixes)

    def _index(self, number: int, path: Path) -> dict[str, None]:
        if why := unreadable(path):
            raise DataError(f"{written(path)}: {why}.")
        names, latest, seen = dict[str, None](), "", dict[str, str]()
        try:
            with tarfile.open(path, "r:") as archive:
                state = path.stat()
                self._stamps.append((state.st_size, state.st_mtime_ns))
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else all of them are held
                    key, _, suffix = _split(member.name)
                    if not member.isfile() or not suffix:
                        continue
                    if key != latest or not self.keys:
                        latest, seen = key, {}
                        self.keys.append(key)
                        self._shard.append(number)
                        self._first.append(len(self._size))
                    cells = {_column(suffix): None}
                    if _column(suffix) == _JSON:
                        cells = dict.fromkeys(self._object(path, member))
                    for column in cells:
                        if column in seen:
                            self._refuse(
                                f"{written(path)}/{written(member.name)}: two cells of one row are called "
                                f"{shown(column)} (the other is of {seen[column]}); rename one."
                            )
                        seen[column] = written(member.name.rpartition("/")[2])
                    names |= cells
                    self._suffix.append(self._suffixes.setdefault(suffix, len(self._suffixes)))
                    self._begin_of.append(member.offset_data)
                    self._size.append(member.size)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{written(path)}: not a tar file that can be read ({error}); unpack .gz first.") from None
        except OSError as error:
            raise DataError(f"{written(path)}: cannot be read ({error.strerror or error}).") from None
        return names

    def _refuse(self, sentence: str) -> None:
        """Of the row that is indexed now."""
        self.broken.append(sentence)
        self._bad.add(len(self.keys) - 1)

    def _leave_out_bad(self) -> None:
        """Close the gaps of rows that are told in `broken`."""
        if not self._bad:
            return
        ends = [*self._first[1:], len(self._size)]
        good = [row for row in range(len(self.keys)) if row not in self._bad]
        spans = [range(self._first[row], ends[row]) for row in good]
        self.keys, self._shard = [self.keys[row] for row in good], array("q", (self._shard[row] for row in good))
        self._first = array("q", itertools.accumulate(map(len, spans[:-1]), initial=0)) if good else array("q")
        members = list(itertools.chain.from_iterable(spans))
        for name in ("_suffix", "_begin_of", "_size"):
            values = getattr(self, name)
            setattr(self, name, array("q", (values[at] for at in members)))

    def _object(self, path: Path, member: tarfile.TarInfo) -> Mapping[str, Any]:
        place = f"{written(path)}/{written(member.name)}"
        try:
            with path.open("rb") as file:
                content = parsed(_decoded(os.pread(file.fileno(), member.size, member.offset_data), place), place)
        except DataError as error:
            self._refuse(str(error))
            return {}
        if not isinstance(content, dict):
            self._refuse(f'{place}: must hold a JSON object like {{"caption": …}}, got {shown(content)}.')
            return {}
        return content

    def place(self, index: int) -> str:
        """Return where a row stands, for messages: the archive and the key."""
        return f"{written(self.paths[self._shard[index]])}/{written(self.keys[index])}"

    def _members(self, index: int) -> Iterator[tuple[str, int]]:
        end = self._first[index + 1] if index + 1 < len(self._first) else len(self._size)
        for at in range(self._first[index], end):
            yield self._named[self._suffix[at]], at

    def _read(self, index: int, at: int) -> bytes:
        shard, place = self._shard[index], self.place(index)
        if self._size[at] > BYTES.most:
            raise DataError(f"{place}: a member of {self._size[at]:,} bytes; at most {BYTES.most:,} are read.")
        with self.paths[shard].open("rb") as file:
            state = os.fstat(file.fileno())
            if (state.st_size, state.st_mtime_ns) != self._stamps[shard]:
                raise DataError(f"{written(self.paths[shard])}: was written to after it was read; start again.")
            return os.pread(file.fileno(), self._size[at], self._begin_of[at])

    def light_rows(self, begin: int, end: int) -> list[Mapping[str, Any]]:
        """Read the cells of rows that are no bytes."""
        rows: list[Mapping[str, Any]] = []
        for index in range(begin, end):
            row: dict[str, Any] = dict.fromkeys(name for name in self.columns if name not in self.heavy)
            row["__key__"] = self.keys[index]
            for suffix, at in self._members(index):
                if (column := _column(suffix)) == _TEXT:
                    row[_TEXT] = _decoded(self._read(index, at), self.place(index)).strip()
                elif column == _JSON:
                    row |= parsed(_decoded(self._read(index, at), self.place(index)), self.place(index))
            rows.append(row)
        return rows

    def value(self, index: int, column: str) -> Any:
        """Read the bytes of a member, None where there is none."""
        return next((self._read(index, at) for name, at in self._members(index) if _column(name) == column), None)

    def is_null(self, index: int, column: str) -> bool:
        """Return whether the row has no such member."""
        return all(_column(name) != column for name, _ in self._members(index))


def _split(name: str) -> tuple[str, str, str]:
    """(key, ".", suffixes): the name up to the first dot of its last part, and what stands behind it."""
    folder, slash, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return (folder + slash + key, dot, suffix.lower()) if key else (name, "", "")


def _column(suffix: str) -> str:
    """The column of a member by what stands behind its key."""
    if suffix == "txt":
        return _TEXT
    return _JSON if suffix == "json" else hinted(f"x.{suffix}") or suffix


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 text ({error.reason}).") from None


def read_tars(reference: str, relative_to: Path | None) -> Table:
    """Index the archives that `reference` names."""
    rows = TarRows(shards(reference, relative_to))
    return Table(reference, rows, rows.columns, place_of=rows.place, broken=rows.broken)


__all__ = ["names_tars", "read_tars", "shards"]
