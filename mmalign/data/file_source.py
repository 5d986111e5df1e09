"""What sources that read one file of rows share: the options that name it, and the part of it that is held out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from mmalign.core.options import Count, ShareBelowOne, refuse, requires
from mmalign.data.bad_rows import without_bad
from mmalign.data.held_out import split, warn_of_leaks
from mmalign.data.hub import DataFiles, DatasetOptions
from mmalign.data.intake import MediaOptions
from mmalign.data.renamed_columns import ColumnMap, require_column_map, with_columns
from mmalign.data.sampled import sampled
from mmalign.data.table import Table, check_rows
from mmalign.data.table_rows import TableRows
from mmalign.data.tables import read_table
from mmalign.media.picture_fit import ground_of

__all__ = ["FileSource"]

log = logging.getLogger("mmalign")


Rows = TypeVar("Rows", bound=TableRows[Any])


@dataclass
class FileSource(MediaOptions, ABC, Generic[Rows]):
    """Rows from one file, with a part held out; a source says how rows are made of its table.

    Args:
        path: .jsonl, .csv, .parquet, .tar (WebDataset; several by "a-{000..009}.tar" or "*.tar"), a folder (pictures or
            sounds beside a metadata.jsonl, .csv or .parquet, or beside .txt files of their names; or what the
            `datasets` library reads), or "hub:owner/name". Relative paths start at the run file.
        image: column with a picture that the prompt is about (a path relative to the file, or bytes) →
            `media["image"]`, decoded when looked at; "" for none. Of a list the next ones are "image_2", "image_3", ….
        audio: column with a sound that the prompt is about, likewise → `media["audio"]`.
        held_out: share of the distinct prompts set aside, by a hash of their text, all rows of one together; of
            prompts about pictures or sounds, of those.
        held_out_path: another file of the same columns to evaluate on instead.
        held_out_split: another split of the same dataset to evaluate on instead.
        split: of a dataset that has splits; "train[:10%]" is a part of one.
        config: of a dataset that has several (its subset, on the Hub's pages).
        revision: of a dataset of the Hub: a branch, a tag or a commit.
        data_files: of a dataset: the files to read, a pattern, a list of them, or one for each split.
        streaming: fetch only the first `limit` rows of a dataset of the Hub. They stay on this disk: every pass
            shuffles all of them, and a resumed run has the same.
        shuffle_buffer: of a stream: draw its rows through a buffer of so many, its files in a drawn order, instead of
            taking the first ones (`IterableDataset.shuffle` of the `datasets` library); 0 takes the first.
        shuffle_seed: of that drawing; other rows for another seed.
        limit: keep only the first rows (0: all).
        skip_bad: leave out rows that cannot be read, and say how many and which is the first; all rows, and the headers
            of all their files, are read at the start then.
        columns: other names for columns of the file, by the name that they are read under: {prompt: instruction};
            entries of lists and objects as "answers.text[0]"; a list of columns is one of their values; "=some words"
            is that text in every row.
        relative_to: the run file's folder; set by mmalign.
    """

    path: str
    _: KW_ONLY
    image: str = ""
    audio: str = ""
    held_out: ShareBelowOne = 0.0
    held_out_path: str = ""
    held_out_split: str = ""
    split: str = "train"
    config: str = ""
    revision: str = ""
    data_files: DataFiles | None = None
    streaming: bool = False
    shuffle_buffer: Count = 0
    shuffle_seed: Count = 0
    limit: Count = 0
    skip_bad: bool = False
    columns: ColumnMap = field(default_factory=dict)
    relative_to: Path | None = None

    references: ClassVar[tuple[str, ...]] = ("path", "held_out_path")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_column_map(self.columns)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share in [0, 1), got {self.held_out}")
        if self.held_out and self.held_out_path:
            raise ValueError("set held_out or held_out_path, not both")
        named = bool(self.held_out) + bool(self.held_out_path) + bool(self.held_out_split)
        refuse(
            requires(bool(self.shuffle_buffer), self.streaming, "shuffle_buffer: is of a stream; set streaming: true."),
            requires(bool(self.shuffle_seed), bool(self.shuffle_buffer), "shuffle_seed: needs shuffle_buffer."),
            requires(bool(self.held_out_split), named == 1, "held_out_split: set it, held_out or held_out_path: one."),
            requires(
                bool(self.held_out_split),
                self.held_out_split != self.split,
                f"held_out_split: is '{self.split}', the split that is trained on; name another.",
            ),
        )

    def training_items(self) -> Rows:
        """Return the rows to train on, in file order."""
        return self._sides[0]

    def held_out_items(self) -> Rows:
        """Return the rows never trained on, in file order; empty if no `held_out…` option is set."""
        return self._sides[1]

    @abstractmethod
    def prompt_column(self) -> str:
        """The column that holds the text of the prompt."""

    def media_columns(self) -> dict[str, str]:
        """Return the column of each kind of media; "" where the file has none."""
        return {"image": self.image, "audio": self.audio}

    @abstractmethod
    def of(self, table: Table) -> Rows:
        """The rows of a table that was read, in its order; DataError for what no row at all can be made of."""

    def require_rows(self, rows: Rows) -> None:
        """DataError with what is wrong with up to 20 single rows, as far as it shows without opening other files."""
        check_rows(rows.made, sampled(rows.rows))

    def rows_of(self, table: Table) -> Rows:
        """The rows of a table that can be read: all of them, or with `skip_bad` those that are no fault of it."""
        rows = self.of(table)
        if self.skip_bad:
            return without_bad(rows, rows.fault_at, [*table.broken, *self.lonely(table)])
        self.require_rows(rows)
        return rows

    def lonely(self, table: Table) -> Sequence[str]:
        """Return sentences on files that are of no row, where that is a fault of the rows."""
        return []

    @cached_property
    def _sides(self) -> tuple[Rows, Rows]:
        rows, file = self._read(self.path, self.split)
        if self.held_out_path or self.held_out_split:
            held_out, other = self._read(self.held_out_path or self.path, self.held_out_split or self.split)
            other = f"{other}, split {self.held_out_split}" if self.held_out_split else other
            warn_of_leaks(rows.units(), held_out.units(), (file, other))
            return rows, held_out
        if not self.held_out:
            return rows, rows.only([])
        training, aside = split(rows.units(), self.held_out, file)
        return rows.only(_at(rows, training)), rows.only(_at(rows, aside))

    def _read(self, path: str, split: str) -> tuple[Rows, str]:
        options = DatasetOptions(
            *(split, self.config, self.revision, self.data_files, self.streaming, self.limit),
            *(self.shuffle_buffer, self.shuffle_seed),
        )
        table = read_table(path, self.relative_to, options=options, skip_bad=self.skip_bad)
        table = with_columns(replace(table, ground=ground_of(self.ground)), self.columns)
        self.left_out(table)
        return self.rows_of(table), table.file

    def left_out(self, table: Table) -> None:
        """Say which files of a folder of media are of no row."""
        if table.unlisted:
            log.warning("%d files are left out; the first: %s", len(table.unlisted), table.unlisted[0])

    def _count(self, table: Table) -> int:
        """How many of the table's rows are read."""
        return min(self.limit or len(table.rows), len(table.rows))


def _at(rows: TableRows[Any], indices: Sequence[int]) -> Sequence[int]:
    """The places in the table of the rows at `indices`."""
    whole = isinstance(rows.rows, range) and rows.rows == range(len(rows))
    return indices if whole else [rows.rows[i] for i in indices]
