"""What lies in a folder of pictures or sounds: those by their content, and the rest by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmalign.core.errors import DataError
from mmalign.core.regular import written
from mmalign.media.kinds import Kind, kind_of_file

__all__ = ["Media", "media_in", "skipped"]

NAMED = 5  # of the files that are left out


@dataclass(frozen=True)
class Media:
    """The files of one folder in the order of their names; `others` are its other files and its folders ("more/")."""

    kinds: dict[Path, Kind]
    others: list[str]

    def of(self, kind: Kind) -> list[Path]:
        """The folder's pictures, or its sounds."""
        return [file for file, file_kind in self.kinds.items() if file_kind == kind]


def media_in(folder: Path) -> Media:
    """All that is in `folder` itself, but for what is hidden; DataError if it cannot be listed."""
    try:
        names = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise DataError(f"{written(folder)}: cannot be listed ({error.strerror}).") from None
    kinds = {file: kind for file in names if not file.is_dir() and (kind := kind_of_file(file))}
    others = [written(file.name) + "/" * file.is_dir() for file in names if file not in kinds]
    return Media(kinds, others)


def skipped(others: Sequence[str], total: int, why: str) -> str:
    """A sentence that counts what is left out of `total`, and names the first of it; "" if nothing is."""
    if not others:
        return ""
    few = ", ".join(others[:NAMED]) + (", …" if len(others) > NAMED else "")
    return f"{len(others)} of {total} skipped, {why}: {few}"
