"""Rows of text files by where their bytes stand: one is parsed when it is indexed, and no other is held.

A million rows take 24 MB, whatever they hold. All of them are parsed once, when the file is read, so that every fault
is known then; what is indexed later is parsed again from the same bytes, as exactly as Python's own readers do it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, all_faults, shown
from mmalign.core.regular import unreadable, written
from mmalign.core.texts import parsed
from mmalign.data.lazy_rows import IndexedRows

Row = Mapping[str, Any]
AT_ONCE = 4096  # rows read together where all are read in order
_BOM = b"\xef\xbb\xbf"


class LineRows(IndexedRows[Row]):
    """Rows of one file; the file stays open, so that another one under its name changes nothing."""

    def __init__(self, path: Path, parse: Callable[[str], Row]) -> None:
        if (why := unreadable(path)) and not why.startswith("is empty"):
            raise DataError(f"{written(path)}: {why}.")
        self.path, self.parse = path, parse
        self._begins, self._sizes, self.lines = array("q"), array("q"), array("q")
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{written(path)}: cannot be read ({error.strerror}).") from None
        weakref.finalize(self, os.close, self._file)
        self._stamp = self._now()

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._file)
        return state.st_size, state.st_mtime_ns

    def _require_same(self) -> None:
        if self._now() != self._stamp:
            raise DataError(f"{self.path}: was written to after it was read; start again with the file as it is now.")

    def add(self, begin: int, end: int, line: int) -> None:
        """Add a row: its bytes, and the line that messages name."""
        self._begins.append(begin)
        self._sizes.append(end - begin)
        self.lines.append(line)

    def raw_lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the number from 1, the first byte and the bytes of each line, without a byte order mark."""
        begin = 0
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            for number, raw in enumerate(file, 1):
                mark = len(_BOM) if number == 1 and raw.startswith(_BOM) else 0
                yield number, begin + mark, raw[mark:]
                begin += len(raw)

    def text_lines(self, faults: list[str] | None = None) -> Iterator[tuple[int, int, int, str]]:
        """Yield number, first byte, byte behind it and text of each line.

        One that is not UTF-8 adds a sentence to `faults`; where there are none, it is a DataError.
        """
        for number, begin, raw in self.raw_lines():
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                fault = f"{self.path}:{number}: not UTF-8 text ({error.reason}); save the file as UTF-8."
                if faults is None:
                    raise DataError(fault) from None
                faults.append(fault)
                continue
            yield number, begin, begin + len(raw), text

    def __len__(self) -> int:
        return len(self._begins)

    def __iter__(self) -> Iterator[Row]:
        """Every row in order, read some thousands at a time."""
        for first in range(0, len(self), AT_ONCE):
            begins, sizes = self._begins[first : first + AT_ONCE], self._sizes[first : first + AT_ONCE]
            self._require_same()
            part = os.pread(self._file, begins[-1] + sizes[-1] - begins[0], begins[0])
            for begin, size in zip(begins, sizes, strict=True):
                yield self.parse(part[begin - begins[0] : begin - begins[0] + size].decode())

    def made(self, index: int) -> Row:
        """Read row `index`."""
        self._require_same()
        return self.parse(os.pread(self._file, self._sizes[index], self._begins[index]).decode())


def read_txt(path: Path) -> tuple[LineRows, list[str], list[str]]:
    """Read one prompt a line; blank lines and lines that begin with # are comments (write \\# for a literal #)."""
    rows, faults = LineRows(path, _prompt_line), list[str]()
    for number, begin, end, text in rows.text_lines(faults):
        if (line := text.strip()) and not line.startswith("#"):
            rows.add(begin, end, number)
    return rows, ["prompt"], faults


def _prompt_line(text: str) -> Row:
    line = text.strip()
    return {"prompt": line[1:] if line.startswith("\\#") else line}


def read_jsonl(path: Path) -> tuple[LineRows, list[str], list[str]]:
    """Read one object a line; its rows, its columns in their order, and a sentence for every line that is none."""
    rows, columns, faults = LineRows(path, json.loads), dict[str, None](), list[str]()
    decode = json.JSONDecoder(object_pairs_hook=_distinct).decode
    for number, begin, end, text in rows.text_lines(faults):
        if not text.strip():
            continue
        try:
            row = decode(text)
        except (ValueError, RecursionError) as error:
            faults.append(_why_not(text.rstrip("\r\n"), f"{path}:{number}", error))
            continue
        if not isinstance(row, dict):
            faults.append(f'{path}:{number}: a line must be a JSON object like {{"prompt": …}}, got {shown(row)}.')
            continue
        rows.add(begin, end, number)
        if not row.keys() <= columns.keys():
            columns |= dict.fromkeys(row)
    return rows, list(columns), faults


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two values under one key only one would be read, whichever it is."""
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return row


class _Twice(ValueError):
    """The key that an object has twice."""


def _why_not(line: str, place: str, error: Exception) -> str:
    if isinstance(error, _Twice):
        return f"{place}: the key {shown(str(error))} stands twice; rename or remove one. The line: {shown(line)}"
    try:
        parsed(line, place)
    except DataError as reason:
        return str(reason)
    raise error


def read_csv(path: Path) -> tuple[LineRows, list[str], list[str]]:
    """Read cells as texts under the names of the first line; a sentence for every row of another length."""
    names: list[str] = []
    rows, faults, at = LineRows(path, lambda text: dict(zip(names, _cells(text), strict=False))), list[str](), _Place()
    reader = csv.reader(_unbroken(rows, at), strict=True)
    try:
        names += next(reader, [])
        begin = at.end
        for cells in reader:
            if cells and len(cells) != len(names):
                row: dict[str | None, Any] = dict(zip(names, [*cells, *[None] * len(names)], strict=False))
                row |= {None: cells[len(names) :]} if len(cells) > len(names) else {}
                faults.append(
                    f"{path}:{reader.line_num}: the row does not have the {len(names)} fields of the header "
                    f"({', '.join(names)}): {shown(row)}"
                )
            elif cells:
                rows.add(begin, at.end, reader.line_num)
            begin = at.end
    except csv.Error as error:  # what follows is no row at all
        raise all_faults([*faults, f"{path}:{reader.line_num}: not valid CSV: {error}."]) from None
    return rows, names, faults


class _Place:
    """Where the bytes that were read so far end."""

    end = 0


def _unbroken(rows: LineRows, at: _Place) -> Iterator[str]:
    """The lines of a file as `csv` wants them: ended by \\n, \\r or \\r\\n, of which the last is read as \\n."""
    for _, begin, end, text in rows.text_lines():
        at.end = begin
        if "\r" not in text:
            at.end = end
            yield text
            continue
        for line in io.StringIO(text, newline=""):
            at.end += len(line.encode())
            yield line[:-2] + "\n" if line.endswith("\r\n") else line


def _cells(record: str) -> list[str]:
    return next(csv.reader(io.StringIO(record.replace("\r\n", "\n"), newline=""), strict=True))


__all__ = ["LineRows", "Row", "read_csv", "read_jsonl", "read_txt"]
