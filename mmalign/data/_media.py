"""Pictures and sound named in rows, decoded only when they are looked at."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmalign.core.errors import DataError, shown
from mmalign.core.types import Audio
from mmalign.data._tables import Table, refuse
from mmalign.media import audio, image

NOUNS = {"image": "picture", "audio": "sound"}  # what messages call each kind of `Prompt.media`


def kind_of(value: Any) -> str:
    """What a cell holds: "image", "audio" or "text", by the suffix of the path in it; raw bytes are a picture."""
    name = value.get("path") or "bytes.png" if isinstance(value, Mapping) else value
    suffix = Path(name).suffix.lower() if isinstance(name, str) else ""
    return "image" if suffix in image.SUFFIXES else "audio" if suffix in audio.SUFFIXES else "text"


def picture(value: Any, folder: Path, place: str) -> Tensor:
    """(3, H, W) in [0, 1] from a cell: a path (relative ones start at `folder`) or {"bytes": …, "path": …}."""
    data, name = _content(value, folder, place)
    return image.decode_image(data, name)


def sound(value: Any, folder: Path, place: str) -> Audio:
    """One row of `Audio`, samples (1, C, S), from a cell as in `picture`."""
    data, name = _content(value, folder, place)
    samples, rate = audio.decode_audio(data, name)
    return Audio(samples[None], rate)


def _content(value: Any, folder: Path, place: str) -> tuple[bytes, str]:
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return value["bytes"], f"{place} ({value['path']})" if value.get("path") else place
    path = _file(value, folder, place)
    try:
        return path.read_bytes(), f"{path} (named in {place})"
    except OSError as error:
        raise DataError(f"{place}: {path} cannot be read ({error.strerror}).") from None


def _file(value: Any, folder: Path, place: str) -> Path:
    named = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(named, str) or not named:
        raise DataError(f"{place}: expected the path of a file, got {shown(value)}.")
    return folder / named  # an absolute one stays as it is


def fault_of(value: Any, folder: Path, place: str) -> str:
    """A sentence if there is no file where a cell says, or nothing in it, else ""; nothing is opened."""
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return ""
    try:
        path = _file(value, folder, place)
    except DataError as error:
        return str(error)
    return f"{place}: {path} {why}." if (why := _unreadable(path)) else ""


def _unreadable(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', error)})"
    if not stat.S_ISREG(found.st_mode):
        return "is not a file"
    return "" if found.st_size else "is empty"


class LazyMedia(Mapping[str, Any]):
    """`Prompt.media`: "image" as a picture and "audio" as an `Audio` of one row, each decoded at each look."""

    def __init__(self, cells: Mapping[str, Any], folder: Path, place: str) -> None:
        self._cells, self._folder, self._place = dict(cells), folder, place

    @property
    def source(self) -> tuple[Any, ...]:
        """What is decoded, as a key: equal for two rows about one file or the same bytes."""
        cells = [
            (kind, cell.get("path"), cell.get("bytes")) if isinstance(cell, Mapping) else (kind, str(cell))
            for kind, cell in sorted(self._cells.items())
        ]
        return self._folder, *cells

    def __getitem__(self, key: str) -> Any:
        return (sound if key == "audio" else picture)(self._cells[key], self._folder, self._place)

    def faults(self) -> list[str]:
        """What keeps its files from being read, as far as that shows without opening them."""
        return [fault for cell in self._cells.values() if (fault := fault_of(cell, self._folder, self._place))]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def media_of(table: Table, index: int, columns: Mapping[str, str]) -> Mapping[str, Any]:
    """What the prompt of a row is about: `columns` names the column of each of "image" and "audio", "" for none.

    Raises:
        DataError: a row without it.
    """
    row, place = table.row(index), table.place(index)
    wanted = {kind: column for kind, column in columns.items() if column}
    for kind, column in wanted.items():
        if row.get(column) is None:
            raise DataError(f"{place}: '{column}' is missing; every row needs its {NOUNS[kind]}.")
    cells = {kind: row[column] for kind, column in wanted.items()}
    return LazyMedia(cells, Path(table.file).parent, place) if cells else {}


def require_files(*sides: Sequence[Any]) -> None:
    """Stop before anything is made of rows that cannot be read; files are looked for, never opened.

    Args:
        sides: prompts, or what makes preferences when it is indexed and has `faults()`.

    Raises:
        DataError: up to 20 faults, each with its file and line.
    """
    found = [fault for side in sides for fault in _faults(side)]
    refuse(list(dict.fromkeys(found)))


def _faults(items: Sequence[Any]) -> list[str]:
    if hasattr(items, "faults"):
        return items.faults()  # type: ignore[no-any-return]
    if not isinstance(items, list | tuple):  # looking at them may decode them
        return []
    prompts: list[Any] = [getattr(item, "prompt", item) for item in items]
    return [fault for asked in prompts if isinstance(asked.media, LazyMedia) for fault in asked.media.faults()]
