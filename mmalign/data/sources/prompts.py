"""Prompts from a file: a text a line, or rows with a prompt column whose other columns become facts for rewards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mmalign.core.options import Count, ShareBelowOne
from mmalign.core.types import Prompt
from mmalign.data.held_out import split, warn_of_leaks
from mmalign.data.lazy_media import media_of
from mmalign.data.tables import Table, every, read_table

__all__ = ["Prompts"]


@dataclass
class Prompts:
    """Prompts from one file, with a part held out for evaluation.

    Args:
        path: .txt (one prompt a line; blank lines and # comments do not count), .jsonl, .csv, .parquet, a folder the
            `datasets` library reads, or "hub:owner/name". Relative paths start at the run file.
        column: the text of the prompt; every other column goes to `Prompt.meta`.
        image: column with a picture to condition on (a path relative to the file, or bytes) → `media["image"]`,
            decoded when looked at; "" for none.
        audio: column with a sound to condition on, likewise → `media["audio"]`.
        held_out: share of the distinct prompts set aside, by a hash of their text; of prompts about pictures or sounds,
            of those, all rows of one together.
        held_out_path: another file of the same columns to evaluate on instead.
        split: of a dataset that has splits.
        limit: keep only the first rows (0: all).
        relative_to: the run file's folder; set by mmalign.
    """

    path: str
    column: str = "prompt"
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

    def training_items(self) -> list[Prompt]:
        """The prompts to train on, in file order."""
        return self._sides[0]

    def held_out_items(self) -> list[Prompt]:
        """The prompts never trained on, in file order; empty if neither `held_out` nor `held_out_path` is set."""
        return self._sides[1]

    @cached_property
    def _sides(self) -> tuple[list[Prompt], list[Prompt]]:
        everything, file = self._read(self.path)
        if self.held_out_path:
            aside, other = self._read(self.held_out_path)
            warn_of_leaks(everything, aside, (file, other))
            return everything, aside
        kept, aside_at = split(everything, self.held_out, file)
        return [everything[i] for i in kept], [everything[i] for i in aside_at]

    def _read(self, path: str) -> tuple[list[Prompt], str]:
        table = read_table(path, self.relative_to, self.split)
        return self.of(table), table.file

    def of(self, table: Table) -> list[Prompt]:
        """The prompts of a table that was read, in its order; DataError with up to 20 rows that are none."""
        table.require(self.column, *filter(None, (self.image, self.audio)))
        count = min(self.limit or len(table.rows), len(table.rows))
        return every(lambda i: self._prompt(table, i), range(count))

    def _prompt(self, table: Table, index: int) -> Prompt:
        row = table.row(index)
        text = table.text(index, self.column)
        meta = {k: v for k, v in row.items() if k not in (self.column, self.image, self.audio)}
        media = media_of(table, index, {"image": self.image, "audio": self.audio})
        return Prompt(text, media, meta, table.place(index))
