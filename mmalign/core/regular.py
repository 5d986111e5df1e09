"""Files of other people's naming: only regular ones are opened, and no more of them than a bound."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def written(path: Path | str) -> str:
    """`path` for messages and files: bytes that are no UTF-8, and control characters, as escapes."""
    plain = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)


def unreadable(path: Path | str, most: int | None = None) -> str:
    """Why the file cannot be read ("is empty", "cannot be read (No such file or directory)"), or "".

    Nothing is opened: a device or a pipe, which may never end, is told from a file by its kind.
    """
    try:
        file_stat = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL, or half of a surrogate pair, in the name
        return f"cannot be read ({getattr(error, 'strerror', None) or 'no name of a file'})"
    if stat.S_ISDIR(file_stat.st_mode):
        return "is a folder, not a file"
    if not stat.S_ISREG(file_stat.st_mode):
        return "is not a file (a device, a pipe or a socket)"
    if most is not None and file_stat.st_size > most:
        return f"holds {file_stat.st_size:,} bytes; at most {most:,} are read"
    return "" if file_stat.st_size else "is empty (0 bytes)"


def read_regular(path: Path | str, most: int | None = None) -> bytes:
    """Return the file's bytes; ValueError with the sentence of `unreadable`, which an empty file passes."""
    why = unreadable(path, most)
    if why and not why.startswith("is empty"):
        raise ValueError(why)
    try:
        with Path(path).open("rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if most is not None and len(data) > most:  # it grows
        raise ValueError(f"holds more than the {most:,} bytes that are read")
    return data
