"""Offline comparisons: rows of prompt, chosen and rejected, where outputs are texts, or files read when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

from mmalign.core.errors import DataError, MediaError, shown
from mmalign.core.options import Count, ShareBelowOne
from mmalign.core.types import Preference, Prompt
from mmalign.data import lazy_media
from mmalign.data.contradictions import warn_of_contradictions
from mmalign.data.held_out import split, warn_of_leaks
from mmalign.data.labels import label_of, require_label, verdicts
from mmalign.data.tables import Table, every, read_table

__all__ = ["Preferences"]

Outputs = Literal["auto", "text", "image", "audio"]


@dataclass
class Preferences:
    """Preference pairs from one file, with a part held out by prompt.

    Args:
        path: .jsonl, .parquet, .csv, a folder the `datasets` library reads, or "hub:owner/name".
        prompt, chosen, rejected: their columns; every other column goes to `Prompt.meta`.
        label: column with P(chosen is better) where a file has one: 1, 0 (the two sides are swapped), or 0.5 for a tie.
            Pick-a-Pic is read with prompt: caption, chosen: jpg_0, rejected: jpg_1, label: label_0.
        outputs: what chosen and rejected hold; "auto" decides by the suffixes in the first row. Pictures and sound are
            paths relative to the file (or bytes, in parquet) and are decoded when their row is used.
        image: column with a picture that the prompt is about → `media["image"]`, decoded when looked at; "" for none.
        audio: column with a sound that the prompt is about, likewise → `media["audio"]`.
        held_out: share of the distinct prompts set aside, by a hash of their text, all pairs of one together; of
            prompts about pictures or sounds, of those.
        held_out_path: another file of the same columns instead.
        split: of a dataset that has splits.
        limit: keep only the first rows (0: all).
        relative_to: the run file's folder; set by mmalign.
    """

    path: str
    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    label: str = "label"
    outputs: Outputs = "auto"
    image: str = ""
    audio: str = ""
    held_out: ShareBelowOne = 0.0
    held_out_path: str = ""
    split: str = "train"
    limit: Count = 0
    relative_to: Path | None = None

    references: ClassVar[tuple[str, ...]] = ("path", "held_out_path")

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share in [0, 1), got {self.held_out}")
        if self.held_out and self.held_out_path:
            raise ValueError("set held_out or held_out_path, not both")

    def training_items(self) -> Sequence[Preference]:
        """The comparisons to train on, in file order; pictures and sound are decoded by indexing."""
        return self._sides[0]

    def held_out_items(self) -> Sequence[Preference]:
        """The comparisons never trained on; empty if neither `held_out` nor `held_out_path` is set."""
        return self._sides[1]

    @cached_property
    def _sides(self) -> tuple[_Pairs, _Pairs]:
        everything = self._read(self.path)
        if self.held_out_path:
            aside = self._read(self.held_out_path)
            files = (everything.table.file, aside.table.file)
            warn_of_leaks(everything.prompts(), aside.prompts(), files)
            return everything, aside
        if not self.held_out:
            return everything, everything.only([])
        kept, held = split(everything.prompts(), self.held_out, everything.table.file)
        return everything.only(kept), everything.only(held)

    def _read(self, path: str) -> _Pairs:
        table = read_table(path, self.relative_to, self.split)
        table.require(self.prompt, self.chosen, self.rejected, *filter(None, self._about.values()))
        first = table.rows[0]
        kinds = {lazy_media.kind_of(first.get(c), Path(table.file).parent) for c in (self.chosen, self.rejected)}
        if self.outputs == "auto" and len(kinds) > 1:
            raise DataError(
                f"{table.place(0)}: '{self.chosen}' and '{self.rejected}' look like {' and '.join(sorted(kinds))}; "
                f"say outputs: text, image or audio. The row: {shown(first)}"
            )
        kind = kinds.pop() if self.outputs == "auto" else self.outputs
        require_label(table, self.label, self.chosen)
        rows = list(range(min(self.limit or len(table.rows), len(table.rows))))
        columns = (self.prompt, self.chosen, self.rejected)
        swapped = verdicts(table, rows, self.label, (self.chosen, self.rejected))
        if kind == "text" or isinstance(table.rows, list):  # else comparing means fetching every picture
            warn_of_contradictions(table, rows, columns, [column for column in self._about.values() if column], swapped)
        return _Pairs(table, rows, kind, columns, self._about, self.label)

    @property
    def _about(self) -> dict[str, str]:
        """The columns of what prompts are about."""
        return {"image": self.image, "audio": self.audio}


class _Pairs(Sequence[Preference]):
    """Some rows of a table as preferences, made when indexed."""

    def __init__(
        self,
        table: Table,
        rows: list[int],
        kind: str,
        columns: tuple[str, str, str],
        about: Mapping[str, str],
        label: str,
    ) -> None:
        self.table, self.rows, self.kind, self.columns, self.about, self.label = (
            table,
            rows,
            kind,
            columns,
            about,
            label,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Preference: ...
    @overload
    def __getitem__(self, index: slice) -> _Pairs: ...
    def __getitem__(self, index: int | slice) -> Preference | _Pairs:
        if isinstance(index, slice):
            return self.only(self.rows[index])
        at = self.rows[index]
        sides = self.columns[:0:-1] if label_of(self.table, at, self.label) == 0 else self.columns[1:]
        return Preference(self._asked(at), *(self._output(at, column) for column in sides))

    def only(self, rows: list[int]) -> _Pairs:
        """The same table with other rows."""
        return _Pairs(self.table, rows, self.kind, self.columns, self.about, self.label)

    def prompts(self) -> list[Prompt]:
        """What was asked in every row; nothing is decoded."""
        return every(self._asked, self.rows)

    def faults(self) -> list[str]:
        """What keeps rows from being read, as far as that shows without opening a file."""
        return [fault for at in self.rows for fault in self._faults_at(at)]

    def shapes(self) -> Iterator[tuple[str, lazy_media.Shape]]:
        """Where each compared picture or sound stands, and what its header says; others are in `faults`."""
        for at in self.rows if self.kind != "text" else ():
            for column in self.columns[1:]:
                value, folder, place = self._cell(at, column)
                with suppress(DataError, MediaError):
                    yield place, lazy_media.shape_of(self.kind, value, folder, place)

    def _faults_at(self, at: int) -> Iterator[str]:
        try:
            label_of(self.table, at, self.label)
            media = self._asked(at).media
            yield from media.faults() if isinstance(media, lazy_media.LazyMedia) else ()
        except DataError as error:
            yield str(error)
        for column in self.columns[1:]:
            if self.kind != "text":
                try:
                    lazy_media.shape_of(self.kind, *self._cell(at, column))
                except (DataError, MediaError) as error:
                    yield str(error)
                continue
            try:
                self.table.text(at, column)
            except DataError as error:
                yield str(error)

    def _asked(self, at: int) -> Prompt:
        meta = {
            k: v for k, v in self.table.row(at).items() if k not in (*self.columns, *self.about.values(), self.label)
        }
        if (label := label_of(self.table, at, self.label)) is not None:
            meta["label"] = label or 1.0  # of 0 the sides are swapped
        media = lazy_media.media_of(self.table, at, self.about)
        return Prompt(self.table.text(at, self.columns[0]), media, meta, self.table.place(at))

    def _output(self, at: int, column: str) -> Any:
        if self.kind == "text":
            return self.table.text(at, column)
        return (lazy_media.picture if self.kind == "image" else lazy_media.sound)(*self._cell(at, column))

    def _cell(self, at: int, column: str) -> tuple[Any, Path, str]:
        """A cell of a file, the folder where its path starts, and where it stands."""
        place = f"{self.table.place(at)}, '{column}'"
        return self.table.row(at).get(column), Path(self.table.file).parent, place
