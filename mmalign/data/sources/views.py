"""Questions with other wordings of them, all of which share a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import DataSource
from mmalign.data.row_kinds import kind_of_rows, prompts_of
from mmalign.data.view_rows import ViewRows, wordings_of

__all__ = ["Views"]

_SHOWN = 20  # faults that are told


@dataclass
class Views:
    """Each prompt of another source, and behind it other wordings of it; they are in one step of training together.

        data:
          name: views
          of: {name: prompts, path: questions.jsonl, held_out: 0.05}
          column: paraphrases

    A wording has the media and the facts of its prompt, and both have `view_of`, the number of the row, in
    `Prompt.meta`: by it the reward `consensus` knows them (Co-Reward, arXiv 2508.00410). `mmalign annotate … --with
    paraphrase` writes such a column. `trainer.prompts_per_step` counts wordings, and must hold whole sets of them on
    every process. What is held out has no other wordings.

    Args:
        of: the source, {name: …, options…}, of prompts.
        column: of `Prompt.meta`: another wording, or a list of them, in JSON or as a table holds it.
        count: wordings of each row besides its own; a row with fewer is a fault, of more the first ones are taken.
        relative_to: the run file's folder; set by mmalign.
    """

    of: dict[str, Any]
    _: KW_ONLY
    column: str = "paraphrases"
    count: AtLeastOne = 1
    relative_to: Path | None = None
    make: Callable[[Any, str], DataSource] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.make is None:
            raise ConfigError("data 'views' is built of another source; use a run file.")
        self.source = self.make(self.of, "of")
        self.make = None

    def training_items(self) -> Sequence[Any]:
        """Return the rows to train on, each followed by its other wordings."""
        return self._training

    def held_out_items(self) -> Sequence[Any]:
        """Return what the source holds out, each row by itself."""
        rows = prompts_of(self.source.held_out_items())
        return ViewRows(rows, self.column, 0) if len(rows) else rows

    @cached_property
    def _training(self) -> ViewRows:
        items = self.source.training_items()
        if (kind := kind_of_rows(items)) != "prompts":
            raise DataError(f"data.of: are {kind}, which have no other wordings; name a source of prompts.")
        rows = prompts_of(items)
        faults = []
        for row in rows:
            try:
                wordings_of(row, self.column, self.count)
            except ValueError as error:
                faults.append(f"{row.place or repr(row.text[:40])}: {error}.")
        if faults:
            more = [f"… and {len(faults) - _SHOWN} more rows."] if len(faults) > _SHOWN else []
            raise DataError(faults[:_SHOWN] + more)
        return ViewRows(rows, self.column, self.count)
