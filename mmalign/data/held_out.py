"""Setting rows aside by what they ask and what it is about, so that nothing trained on is measured."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.core.errors import DataError
from mmalign.core.protocols import DataSource
from mmalign.core.rng import stream_seed
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Example, Prompt
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.row_kinds import prompt_of, units_of

log = logging.getLogger("mmalign")


Unit = str | Prompt | Example  # an example's output is its `LazyMedia`, or a text


def split(units: Sequence[Unit], share: float, file: str) -> tuple[Sequence[int], Sequence[int]]:
    """Indices to train on and indices held out, both in file order.

    What stays together has one name (see `unit_names`). Names are ranked by a hash of them alone and the first `share`
    of them (rounded) is held out: the split is the same on every machine and for every seed, and adding rows moves few.

    Raises:
        DataError: one side would be empty.
    """
    if share == 0:
        return range(len(units)), []
    keys = _keys(units)
    distinct = np.unique(keys)
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise DataError(
            f"{file}: held_out = {share} of {len(distinct)} distinct {_called(units)} is {count}; both sides need at "
            "least one."
        )
    aside = keys <= distinct[count - 1]
    training, held_out = (array("q", np.flatnonzero(side).astype(np.int64).tobytes()) for side in (~aside, aside))
    return training, held_out


def _keys(units: Sequence[Unit]) -> np.ndarray:
    """(N,) int64: the hash of each unit's name. Names of media are held until all are known, texts are not."""
    keys, about_media = np.empty(len(units), np.int64), dict[int, list[tuple[str, Path | None]]]()
    for at, unit in enumerate(units):
        if _is_text(unit):
            keys[at] = _rank(_text_of(unit))
        else:
            about_media[at] = list(_names(unit))
    for at, name in zip(about_media, _joined(list(about_media.values())), strict=True):
        keys[at] = _rank(name)
    return keys


def _rank(name: str) -> int:
    return stream_seed(0, "held out", name)


def _text_of(unit: Unit) -> str:
    return unit if isinstance(unit, str) else prompt_of(unit).question


def _is_text(unit: Unit) -> bool:
    """Is it told apart by its text alone?"""
    if isinstance(unit, str):
        return True
    if isinstance(unit, Example):
        return isinstance(unit.output, str) and not len(unit.prompt.media)
    return not len(unit.media)


def warn_of_leaks(training: Sequence[Unit], held_out: Sequence[Unit], files: tuple[str, str]) -> int:
    """Log how many held-out units are also trained on; returns that number."""
    shared, total = overlap(training, held_out)
    if shared:
        log.warning(
            "%d of %d held-out %s of %s are also in %s (the first: %r): held-out figures will look too good.",
            *(len(shared), total, _called(held_out), files[1], files[0], shared[0]),
        )
    return len(shared)


def shared_with_training(source: DataSource, questions: Sequence[Any]) -> tuple[int, int]:
    """Return how many units of `questions` (prompts or preferences) the source trains on, and how many there are."""
    training = source.training_items()
    shared, total = overlap(units_of(training), units_of(questions))
    return len(shared), total


def shared_rows(training: Sequence[Unit], held_out: Sequence[Unit]) -> list[int]:
    """Return the indices of units of `training` that `held_out` has, too."""
    aside = {_text_of(unit) for unit in held_out if _is_text(unit)}
    shown = [list(_names(unit)) for unit in held_out if not _is_text(unit)]
    rows, media = list[int](), dict[int, list[tuple[str, Path | None]]]()
    for at, unit in enumerate(training):
        if not _is_text(unit):
            if shown:
                media[at] = list(_names(unit))
        elif _text_of(unit) in aside:
            rows.append(at)
    joined = _joined([*media.values(), *shown])
    held_out_names = set(joined[len(media) :])
    return sorted(rows + [at for at, name in zip(media, joined, strict=False) if name in held_out_names])


def overlap(training: Sequence[Unit], held_out: Sequence[Unit]) -> tuple[list[str], int]:
    """Return the units of `held_out` that `training` shares, and how many units it has."""
    aside = dict.fromkeys(_text_of(unit) for unit in held_out if _is_text(unit))
    shown = [list(_names(unit)) for unit in held_out if not _is_text(unit)]
    trained, trained_media = set[str](), list[list[tuple[str, Path | None]]]()
    for unit in training:
        if not _is_text(unit):
            if shown:
                trained_media.append(list(_names(unit)))
        elif (text := _text_of(unit)) in aside:
            trained.add(text)
    joined = _joined(trained_media + shown)
    trained |= set(joined[: len(trained_media)])
    distinct = [*aside, *dict.fromkeys(joined[len(trained_media) :])]
    return [name for name in distinct if name in trained], len(distinct)


def unit_names(units: Sequence[Unit]) -> list[str]:
    """A name for each row, equal for rows that must not be parted: those about one picture or sound, else of one text.

    One question about sixty pictures is sixty units, and sixty questions about one picture are one. Pictures are the
    same by their bytes, or the bytes of their files, whatever these are called. Examples of one caption, or of one
    picture or sound, stay together.
    """
    return _joined([list(_names(unit)) for unit in units])


def _joined(named: Sequence[Sequence[tuple[str, Path | None]]]) -> list[str]:
    """One name for each row of names; rows that share one have the same."""
    same = _same_bytes({path: name for row in named for name, path in row if path is not None})
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    rows = [[same.get(name, name) for name, _ in row] for row in named]
    for row in rows:
        for name in row[1:]:
            one, other = sorted((find(row[0]), find(name)))
            leader[other] = one
    return [find(row[0]) for row in rows]


def _names(unit: Unit) -> Iterator[tuple[str, Path | None]]:
    """(name, file) of each thing that rows are told apart by: media, or else the text; of an example, both."""
    if isinstance(unit, Example):
        yield unit.prompt.question, None
        if isinstance(unit.output, Mapping):
            yield from _media_names(unit.output)
    elif isinstance(unit, str) or not len(unit.media):
        yield _text_of(unit), None
    else:
        yield from _media_names(unit.media)


def _media_names(media: Mapping[str, Any]) -> Iterator[tuple[str, Path | None]]:
    if not isinstance(media, LazyMedia):
        for value in media.values():
            yield _digest(value), None
        return
    for origin, written in media.origins():
        if isinstance(origin, bytes):
            yield hashlib.sha256(origin).hexdigest(), None
        else:
            yield written, origin


def _digest(value: Tensor | Audio) -> str:
    """The name of a decoded picture or sound: equal for equal samples."""
    samples = value.samples if isinstance(value, Audio) else value
    return hashlib.sha256(samples.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _same_bytes(files: dict[Path, str]) -> dict[str, str]:
    """The names of files that hold what another one holds, each with that one's name; sizes are compared first."""
    by_size: dict[int, list[Path]] = {}
    for path in files:
        try:
            by_size.setdefault(path.stat().st_size, []).append(path)
        except (OSError, ValueError):  # told where files are looked for
            continue
    same: dict[str, str] = {}
    for paths in by_size.values():
        first: dict[str, str] = {}
        for path in paths if len(paths) > 1 else []:
            if not path.is_file():
                continue
            with path.open("rb") as file:
                seen = hashlib.file_digest(file, "sha256").hexdigest()
            same[files[path]] = first.setdefault(seen, files[path])
    return same


def _called(units: Sequence[Unit]) -> str:
    first = units[0] if len(units) else None
    if isinstance(first, Example):
        return "captions with what they describe" if isinstance(first.output, Mapping) else "prompts"
    kinds = set(first.media) if isinstance(first, Prompt) and isinstance(first.media, LazyMedia) else set()
    return "pictures" if kinds == {"image"} else "sounds" if kinds == {"audio"} else "prompts"
