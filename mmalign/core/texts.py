"""Text files as people save them: UTF-8 with or without a byte order mark, lines of any system, lists with comments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, shown
from mmalign.core.regular import read_regular, written


def read_text(path: Path) -> str:
    """Return a regular file's text, without a byte order mark; DataError with the line that is not UTF-8."""
    try:
        return read_regular(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from None
    except ValueError as error:
        raise DataError(f"{written(path)}: {error}.") from None


def parsed(line: str, place: str) -> Any:
    """Return what a line of JSON says; DataError with `place` where it is none, or is nested too deeply to be read."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except RecursionError:
        reason = "its brackets are nested too deeply"
    except ValueError as error:  # a whole number of thousands of digits
        reason = str(error).partition(";")[0]
    raise DataError(f"{place}: not valid JSON: {reason}. The line: {shown(line)}")


def unpacked(cell: object, place: str, begins: tuple[str, ...] = ("[", "{")) -> Any:
    """A cell of a table, of which a text that begins as a list or an object is JSON: CSV files hold no others.

    Raises:
        ValueError: with `place`, where such a text is no JSON.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(begins):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} begins as JSON and is none ({str(error)[:60]}): {cell[:60]!r}") from None


def half_character(text: str) -> str:
    """The first lone surrogate of `text`, as an escape; "" if there is none. JSON can hold one, no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return repr(text[error.start])
    return ""


def text_lines(path: Path) -> list[tuple[int, str]]:
    """One text a line, stripped, with its line number from 1.

    Blank lines and lines that begin with # are comments (write \\# for a literal #).
    """
    lines = [(i, line.strip()) for i, line in enumerate(read_text(path).split("\n"), 1)]
    texts = [(i, line) for i, line in lines if line and not line.startswith("#")]
    return [(i, line[1:] if line.startswith("\\#") else line) for i, line in texts]
