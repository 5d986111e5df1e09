"""What sources that read one file of rows share: the options that name it, and the part of it that is held out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from mmalign.core.options import Count, ShareBelowOne
from mmalign.core.types import Prompt
from mmalign.data.held_out import split, warn_of_leaks
from mmalign.data.tables import Table, read_table

__all__ = ["FileSource"]

Rows = TypeVar("Rows")  # a sequence of prompts or of preferences


@dataclass
class FileSource(ABC, Generic[Rows]):
    """Rows from one file, with a part held out; a source says how rows are made of its table.

    Args:
        path: .jsonl, .csv, .parquet, a folder the `datasets` library reads, or "hub:owner/name". Relative paths start
            at the run file.
        image: column with a picture that the prompt is about (a path relative to the file, or bytes) →
            `media["image"]`, decoded when looked at; "" for none.
        audio: column with a sound that the prompt is about, likewise → `media["audio"]`.
        held_out: share of the distinct prompts set aside, by a hash of their text, all rows of one together; of
            prompts about pictures or sounds, of those.
        held_out_path: another file of the same columns to evaluate on instead.
        split: of a dataset that has splits.
        limit: keep only the first rows (0: all).
        relative_to: the run file's folder; set by mmalign.
    """

    path: str
    _: KW_ONLY
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

    def training_items(self) -> Rows:
        """The rows to train on, in file order."""
        return self._sides[0]

    def held_out_items(self) -> Rows:
        """The rows never trained on, in file order; empty if neither `held_out` nor `held_out_path` is set."""
        return self._sides[1]

    @abstractmethod
    def prompt_column(self) -> str:
        """The column that holds the text of the prompt."""

    def media_columns(self) -> dict[str, str]:
        """The column of each kind of media; "" where the file has none."""
        return {"image": self.image, "audio": self.audio}

    @abstractmethod
    def of(self, table: Table) -> Rows:
        """The rows of a table that was read, in its order; DataError for what no row can be made of."""

    @abstractmethod
    def prompts(self, rows: Rows) -> Sequence[Prompt]:
        """What each row asks; nothing is decoded."""

    @abstractmethod
    def only(self, rows: Rows, indices: Sequence[int]) -> Rows:
        """The rows at `indices`; nothing is decoded."""

    @cached_property
    def _sides(self) -> tuple[Rows, Rows]:
        rows, file = self._read(self.path)
        if self.held_out_path:
            held_out, other = self._read(self.held_out_path)
            warn_of_leaks(self.prompts(rows), self.prompts(held_out), (file, other))
            return rows, held_out
        if not self.held_out:
            return rows, self.only(rows, [])
        training, held = split(self.prompts(rows), self.held_out, file)
        return self.only(rows, training), self.only(rows, held)

    def _read(self, path: str) -> tuple[Rows, str]:
        table = read_table(path, self.relative_to, self.split)
        return self.of(table), table.file

    def _count(self, table: Table) -> int:
        """How many of the table's rows are read."""
        return min(self.limit or len(table.rows), len(table.rows))
