"""Where prompts, preferences and examples come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mmalign.core.types import Example, Preference, Prompt


@runtime_checkable
class DataSource(Protocol):
    """Where rows come from. Making a source reads nothing; its rows are read when they are asked for.

    Both methods return the same rows whenever they are called. A source may say besides, in `references:
    tuple[str, ...]`, which of its options name files; a relative one then starts at the run file, whose folder is
    given to an option called `relative_to`.

    Rows that are expensive to make may be a sequence that makes them when it is indexed. It then answers without
    making any: `row_kind`, "prompts", "preferences" or "examples"; `prompts()`, the prompt of each row; `kind`, the
    modality of what preferences compare or examples show; `faults()`, a sentence for each row that cannot be read;
    `shapes()`, pairs of a row's place and its picture's (height, width).
    """

    def training_items(self) -> Sequence[Prompt] | Sequence[Preference] | Sequence[Example]:
        """Return the rows to train on, at least one; all prompts, all preferences, or all examples."""
        ...

    def held_out_items(self) -> Sequence[Prompt] | Sequence[Preference] | Sequence[Example]:
        """Rows of the same kind that are never trained on; empty where nothing is held out."""
        ...


__all__ = [
    "DataSource",
]
