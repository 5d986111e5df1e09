"""Pictures and sound named in rows, decoded only when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmalign.core.errors import DataError, MediaError, shown
from mmalign.core.regular import read_regular, unreadable, written
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio
from mmalign.data.cells import bytes_in_text, given_samples, holds_samples, samples_digest
from mmalign.data.row_kinds import KnowsFaults, KnowsPrompts, prompts_of
from mmalign.data.table import WHITE, Ground, Table, refuse_rows
from mmalign.media import audio, image
from mmalign.media.bounds import BYTES
from mmalign.media.kinds import NOUNS, hinted, kind_of_data, kind_of_file, named_like_a_file
from mmalign.media.sound_fit import SoundTarget
from mmalign.media.sound_part import part_of
from mmalign.media.whole import require_whole


def kind_of(value: object, folder: Path) -> str:
    """Return what a cell holds: "image", "audio" or "text".

    Bytes and files that are there are looked into; a name that no file has says it by its suffix.
    """
    if holds_samples(value):
        return "audio"
    if (data := _bytes_of(value)) is not None:
        named = value.get("path") if isinstance(value, Mapping) else None
        return kind_of_data(data) or hinted(str(named or "")) or "image"
    name = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not named_like_a_file(name):
        return "text"
    if hinted(name) is None and not (len(name) < 256 and PurePath(name).suffix):
        return "text"
    return kind_of_file(folder / name) or "text"


def read_picture(value: object, folder: Path, place: str, ground: Ground = WHITE) -> Tensor:
    """Read (3, H, W) in [0, 1] from a cell: a path (relative ones start at `folder`), bytes, or both in a mapping.

    Transparency is laid over `ground`.
    """
    data, name = _content(value, folder, place)
    return image.decode_image(data, name, ground)


def read_sound(value: object, folder: Path, place: str) -> Audio:
    """One row of `Audio`, samples (1, C, S), from a cell as in `read_picture`."""
    if (given := given_samples(value, place)) is not None:
        return given
    data, name = _content(value, folder, place)
    samples, rate = audio.decode_audio(data, name)
    return Audio(samples[None], rate)


def _bytes_of(value: object) -> bytes | None:
    """The bytes that a cell holds itself, as Parquet files have them: bare, or beside their path."""
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(content, str):
        return bytes_in_text(content)
    return bytes(content) if isinstance(content, bytes | bytearray | memoryview) else None


def _held_by(value: object) -> bytes | None:
    """What a cell holds itself, as bytes to compare: those of a file, or samples; None of one that names a file."""
    return samples_digest(value) if holds_samples(value) else _bytes_of(value)


def _content(value: object, folder: Path, place: str) -> tuple[bytes, str]:
    if (data := _bytes_of(value)) is not None:
        named = value.get("path") if isinstance(value, Mapping) else None
        return data, f"{place} ({written(named)})" if named else place
    path = _file(value, folder, place)
    try:
        return read_regular(path, BYTES.most), f"{written(path)} (named in {place})"
    except ValueError as error:
        raise DataError(f"{place}: {written(path)} {error}.") from None


def _file(value: object, folder: Path, place: str) -> Path:
    named = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(named, str) or not named:
        raise DataError(f"{place}: expected the path of a file, got {shown(value)}.")
    return folder / named  # an absolute one stays as it is


Shape = tuple[int, int] | audio.SoundShape  # (height, width), or what a sound's header says


def shape_of(kind: str, value: object, folder: Path, place: str) -> Shape:
    """Return what the header of a cell's picture or sound says of it; of a picture its end is looked at, too.

    Raises:
        DataError, MediaError: there is no file where the cell says, or no picture or sound in it, or a too large one.
    """
    if kind == "audio" and (given := given_samples(value, place)) is not None:
        return audio.SoundShape(given.rate, *given.samples.shape[1:])
    data = _bytes_of(value)
    if data is not None:
        source: bytes | Path = data
        name = _content(value, folder, place)[1]
    else:
        source = _file(value, folder, place)
        if why := unreadable(source, BYTES.most):
            raise DataError(f"{place}: {written(source)} {why}.")
        name = f"{written(source)} (named in {place})"
    if kind == "audio":
        return audio.sound_shape(source, name)
    size = image.picture_size(source, name)
    require_whole(source, name)
    return size


class LazyMedia(Mapping[str, Any]):
    """`Prompt.media`: "image" as a picture and "audio" as an `Audio` of one row, each decoded at each look.

    Of several they are "image", "image_2", "image_3", ….
    """

    def __init__(self, cells: Mapping[str, Any], folder: Path, place: str, ground: Ground = WHITE) -> None:
        self._cells, self._folder, self._place, self._ground = dict(cells), folder, place, ground

    @property
    def source(self) -> tuple[Any, ...]:
        """What is decoded, as a key: equal for two rows about one file or the same bytes."""
        cells = [
            (kind, None if isinstance(cell, bytes) else str(_path_of(cell)), _held_by(cell))
            for kind, cell in sorted(self._cells.items())
        ]
        return self._folder, *cells, *(() if self._ground == WHITE else (self._ground,))

    def origins(self) -> Iterator[tuple[bytes | Path, str]]:
        """What is decoded: the bytes of a cell, or the file that it names, and how it names it."""
        for cell in self._cells.values():
            if (data := _held_by(cell)) is not None:
                yield data, ""
            elif isinstance(named := _path_of(cell), str):
                yield self._folder / named, named
            else:
                yield b"", ""

    def __getitem__(self, key: str) -> Any:
        cell = self._cells[key]
        if _kind(key) == "audio":
            return read_sound(cell, self._folder, self._place)
        return read_picture(cell, self._folder, self._place, self._ground)

    def part(self, key: str, target: SoundTarget, start_of: Callable[[int], int]) -> Tensor | None:
        """A stretch (c, s) of the sound `key`, see `mmalign.media.sound_part`; None where all of it must be decoded."""
        if holds_samples(self._cells[key]):
            return None
        return part_of(*_content(self._cells[key], self._folder, self._place), target, start_of)

    def shapes(self) -> Iterator[tuple[str, Shape | str]]:
        """By kind, what each header says, or the sentence why it says nothing; nothing is decoded."""
        for kind, cell in self._cells.items():
            try:
                yield kind, shape_of(_kind(kind), cell, self._folder, self._place)
            except (DataError, MediaError) as error:
                yield kind, str(error)

    def faults(self) -> list[str]:
        """Return what keeps its files from being read, as far as headers show."""
        return [header for _, header in self.shapes() if isinstance(header, str)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def _kind(name: str) -> str:
    """What is called "image_2" is an image."""
    return name.partition("_")[0]


def media_cells(table: Table, index: int, column: str) -> list[Any]:
    """Return the cells of the media in a column: none, one, or those of a list; null entries count as none."""
    cell = table.cell(index, column)
    return [one for one in (cell if isinstance(cell, list | tuple) else [cell]) if one is not None]


def _path_of(cell: object) -> Any:
    return cell.get("path") if isinstance(cell, Mapping) else cell


def row_media(table: Table, index: int, columns: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what the prompt of a row is about: `columns` names the column of each of "image" and "audio", "" for none.

    Raises:
        DataError: a row without it.
    """
    place = table.place(index)
    wanted = {kind: column for kind, column in columns.items() if column}
    if not wanted:
        return {}
    cells = dict[str, Any]()
    for kind, column in wanted.items():
        if not (several := media_cells(table, index, column)):
            raise DataError(f"{place}: '{column}' is missing; every row needs its {NOUNS[kind]}.")
        cells |= {kind if number == 1 else f"{kind}_{number}": cell for number, cell in enumerate(several, 1)}
    return LazyMedia(cells, table.folder, place, table.ground)


def require_files(*sides: Sequence[Any]) -> None:
    """Stop before anything is made of rows that cannot be read; of files, headers are.

    Args:
        sides: prompts, or what makes preferences when it is indexed and has `faults()`.

    Raises:
        DataError: up to 20 faults, each with its file and line.
    """
    faults = [fault for side in sides for fault in _faults(side)]
    refuse_rows(list(dict.fromkeys(faults)))


def _faults(items: Sequence[Any]) -> list[str]:
    if isinstance(items, KnowsFaults):
        return items.faults()
    if not isinstance(items, list | tuple) and not isinstance(items, KnowsPrompts):  # looking at them may decode them
        return []
    media = (prompt.media for prompt in prompts_of(items))
    return [fault for lazy in media if isinstance(lazy, LazyMedia) for fault in lazy.faults()]
