"""Text files as people save them: UTF-8 with or without a byte order mark, lines of any system, lists with comments."""

from __future__ import annotations

from pathlib import Path

from mmalign.core.errors import DataError


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark; DataError with the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from None


def text_lines(path: Path) -> list[tuple[int, str]]:
    """One text a line, stripped, with its line number from 1.

    Blank lines and lines that begin with # are comments (write \\# for a literal #).
    """
    lines = [(i, line.strip()) for i, line in enumerate(read_text(path).split("\n"), 1)]
    kept = [(i, line) for i, line in lines if line and not line.startswith("#")]
    return [(i, line[1:] if line.startswith("\\#") else line) for i, line in kept]
