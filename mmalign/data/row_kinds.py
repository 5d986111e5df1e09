"""Rows of a data source are prompts, or preferences, whose prompts are asked for without decoding what they compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mmalign.core.types import Preference, Prompt


def prompts_of(rows: Sequence[Any]) -> list[Prompt]:
    """The prompt of each row; rows that are decoded by indexing say their prompts themselves, by `prompts()`."""
    if hasattr(rows, "prompts"):
        return list(rows.prompts())
    return [getattr(row, "prompt", row) for row in rows]


def kind_of_rows(rows: Sequence[Any]) -> Literal["prompts", "preferences"]:
    """What the rows are; of rows that are decoded by indexing, `kind` says what they compare."""
    compared = getattr(rows, "kind", None) is not None
    if compared or (isinstance(rows, list | tuple) and rows and isinstance(rows[0], Preference)):
        return "preferences"
    return "prompts"


__all__ = ["kind_of_rows", "prompts_of"]
