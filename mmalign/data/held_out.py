"""Setting rows aside by what they ask and what it is about, so that nothing trained on is measured."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError
from mmalign.core.protocols import DataSource
from mmalign.core.rng import stream_seed
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.row_kinds import prompts_of

log = logging.getLogger("mmalign")


def split(prompts: Sequence[Prompt], share: float, file: str) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out, both in file order.

    What stays together is a unit (see `units`). Units are ranked by a hash of their names alone and the first `share`
    of them (rounded) is held out: the split is the same on every machine and for every seed, and adding rows moves few.

    Raises:
        DataError: one side would be empty.
    """
    if share == 0:
        return list(range(len(prompts))), []
    of = units(prompts)
    distinct = sorted(set(of), key=lambda name: (stream_seed(0, "held out", name), name))
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise DataError(
            f"{file}: held_out = {share} of {len(distinct)} distinct {_called(prompts)} is {count}; both sides need at "
            "least one."
        )
    aside = set(distinct[:count])
    training = [i for i, name in enumerate(of) if name not in aside]
    return training, [i for i, name in enumerate(of) if name in aside]


def warn_of_leaks(training: Sequence[Prompt], held_out: Sequence[Prompt], files: tuple[str, str]) -> int:
    """Log how many held-out units are also trained on; returns that number."""
    shared, total = overlap(training, held_out)
    if shared:
        log.warning(
            "%d of %d held-out %s of %s are also in %s (the first: %r): held-out figures will look too good.",
            *(len(shared), total, _called(held_out), files[1], files[0], shared[0]),
        )
    return len(shared)


def shared_with_training(source: DataSource, questions: Sequence[Any]) -> tuple[int, int]:
    """How many units of `questions` (prompts or preferences) the source trains on, and how many there are."""
    shared, total = overlap(prompts_of(source.training_items()), prompts_of(questions))
    return len(shared), total


def overlap(training: Sequence[Prompt], held_out: Sequence[Prompt]) -> tuple[list[str], int]:
    """The units of `held_out` that `training` shares, and how many units it has."""
    of = units([*training, *held_out])
    trained, distinct = set(of[: len(training)]), list(dict.fromkeys(of[len(training) :]))
    return [name for name in distinct if name in trained], len(distinct)


def units(prompts: Sequence[Prompt]) -> list[str]:
    """A name for each row, equal for rows that must not be parted: those about one picture or sound, else of one text.

    One question about sixty pictures is sixty units, and sixty questions about one picture are one. Pictures are the
    same by their bytes, or the bytes of their files, whatever these are called.
    """
    named = [list(_names(prompt)) for prompt in prompts]
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


def _names(prompt: Prompt) -> Iterator[tuple[str, Path | None]]:
    """(name, file) of each thing that a prompt is about; of one about nothing, its text."""
    media = prompt.media
    if not len(media):
        yield prompt.text, None
        return
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


def _called(prompts: Sequence[Prompt]) -> str:
    kinds = set(prompts[0].media) if prompts and isinstance(prompts[0].media, LazyMedia) else set()
    return "pictures" if kinds == {"image"} else "sounds" if kinds == {"audio"} else "prompts"
