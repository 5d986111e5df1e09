"""Outputs that were made anywhere, as they stand in a JSONL file or lie in a folder."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError, all_faults, shown
from mmalign.core.regular import written
from mmalign.core.texts import half_character, parsed, read_text
from mmalign.core.types import Prompt
from mmalign.data.asking import Asking
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.lazy_rows import IndexedRows
from mmalign.data.lines import LineRows
from mmalign.data.messages import is_messages
from mmalign.data.table import Table
from mmalign.media.folders import Media, media_in, skipped
from mmalign.media.kinds import hinted, kind_of_file, named_like_a_file

__all__ = ["FIELDS", "Row", "indexed_rows", "left_out", "read_output_rows"]

FIELDS = {"prompt": str, "output": str, "meta": dict, "group": str, "image": str, "audio": str, "kind": str}
REQUIRED = ("prompt", "output")
KINDS = ("text", "image", "audio")


@dataclass(frozen=True)
class Row:
    """One line of the file: a prompt and what was made of it.

    Rows of one `group` are compared by rewards that do: of one name, or else of one text about the same media.
    `kind` is "text", "image" or "audio"; "" where `output` names a file that is none. `place` is "file:line" for
    messages.
    """

    prompt: Prompt
    output: str
    group: Hashable
    place: str
    kind: str


class OutputRows(IndexedRows[Row]):
    """Rows of a file that was checked, each parsed when it is indexed: a million take 24 MB."""

    def __init__(self, lines: LineRows) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Row]:
        for index, raw in enumerate(self._lines):
            yield self._row(index, raw)

    def made(self, index: int) -> Row:
        """Parse row `index`."""
        return self._row(index, self._lines[index])

    def _row(self, index: int, raw: Mapping[str, Any]) -> Row:
        return _row(dict(raw), Table(str(self._lines.path), [raw], [*raw], [self._lines.lines[index]]))


def read_output_rows(file: Path) -> list[Row]:
    """Parse and check every line; of a folder, every picture and sound in name order. See `indexed_rows`."""
    return list(indexed_rows(file))


def indexed_rows(file: Path) -> Sequence[Row]:
    """Parse and check every line, of which none is held; of a folder, every picture and sound in name order.

    `image` and `audio` are what the prompt is about; they are read when a reward looks at them. `kind` ("text", "image"
    or "audio") says what `output` is. Without it, an output that names a file is what that file holds; one that is
    written like a picture's or a sound's name is one that is missing; all others are texts.

    A prompt may be a list of messages, see `mmalign.core.conversation`.

    The prompt of `name.wav` in a folder is what `name.txt` beside it says, where there is one.

    Raises:
        DataError: every bad line (text of a folder) at once, with file, line and field; or a folder without media.
    """
    if file.is_dir():
        return _folder_rows(file)
    if not file.is_file():
        raise DataError(f"{written(file)}: no such file.")
    rows, faults = LineRows(file, json.loads), list[str]()
    for number, begin, end, line in rows.text_lines(faults):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            raw = parsed(line.rstrip("\r\n"), place)
            row_faults = list(_faults(raw, place))
            if not row_faults:
                _row(raw, Table(str(file), [raw], [*raw], [number]))
                rows.add(begin, end, number)
            faults += row_faults
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise all_faults(faults)
    if not len(rows):
        raise DataError(f'{file}: holds no rows; write lines like {{"prompt": "…", "output": "picture.png"}}.')
    return OutputRows(rows)


def _row(raw: dict[str, Any], table: Table) -> Row:
    # What a caption was written for; decoded by the rewards that look at it.
    cells, place = {kind: raw[kind] for kind in ("image", "audio") if raw.get(kind)}, table.place(0)
    if is_messages(raw["prompt"]):
        prompt = Asking("prompt", {kind: kind for kind in cells}).prompt(table, 0, raw.get("meta") or {})
    else:
        media = LazyMedia(cells, table.folder, place) if cells else {}
        prompt = Prompt(raw["prompt"], media, raw.get("meta") or {}, place)
    kind = raw.get("kind") or _kind(raw["output"], table.folder)
    group = raw.get("group") or (prompt.question, getattr(prompt.media, "source", ()))
    return Row(prompt, raw["output"], group, place, kind)


def _kind(output: str, folder: Path) -> str:
    """What an output is whose row does not say it."""
    if not output or not named_like_a_file(output):
        return "text"
    path = folder / output
    try:
        there = path.exists() and not path.is_dir()
    except (OSError, ValueError):  # too long for a name, or none
        there = False
    if there:
        return kind_of_file(path) or ""
    return hinted(output) or "text"


def _folder_rows(folder: Path) -> list[Row]:
    media = media_in(folder)
    if not media.kinds:
        raise DataError(f"{written(folder)}: no pictures or sounds in it{_beside(media)}.")
    rows, faults = [], []
    for file, kind in media.kinds.items():
        beside = file.with_suffix(".txt")
        try:
            text = read_text(beside).strip() if beside.is_file() else ""
        except DataError as error:
            faults.append(str(error))
            continue
        place = written(file)
        rows.append(Row(Prompt(text, place=place), file.name, text or file.name, place, kind))
    if faults:
        raise all_faults(faults)
    return rows


def _beside(media: Media) -> str:
    sentence = skipped(media.others, len(media.others), "no picture and no sound")
    return f"; {sentence}" if sentence else ""


def left_out(folder: Path) -> str:
    """A sentence on what the rows of `folder` leave out: files that are neither media nor a medium's text, and folders.

    Hidden ones are not named.
    """
    media = media_in(folder)
    texts = {written(file.with_suffix(".txt").name) for file in media.kinds}
    others = [name for name in media.others if name not in texts]
    return skipped(others, len(others) + len(media.kinds), "no picture, no sound and no text of one")


def _faults(raw: object, place: str) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"{place}: a row is an object, found {type(raw).__name__}."
        return
    for key in REQUIRED:
        if key not in raw:
            yield f"{place}: field '{key}' is missing."
    for key, value in raw.items():
        if key not in FIELDS:
            yield f"{place}: unknown field {shown(key)}; a row has {', '.join(FIELDS)}."
        elif fault := _fault_of(value, FIELDS[key], key):
            yield f"{place}: field '{key}' {fault}"
    if isinstance(raw.get("kind"), str) and raw["kind"] not in KINDS:
        yield f"{place}: field 'kind' is {shown(raw['kind'])}; there is {', '.join(KINDS)}."


def _fault_of(value: object, kind: type, key: str) -> str:
    if value is None and key not in REQUIRED:
        return ""
    if not isinstance(value, kind) and not (key == "prompt" and is_messages(value)):
        return f"must be {kind.__name__}, found {'null' if value is None else shown(value)}."
    half = half_character(value) if isinstance(value, str) else ""
    return f"holds {half}, half of a character, which nothing reads." if half else ""
