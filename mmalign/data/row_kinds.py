"""Rows of a data source are prompts, preferences or examples; what they ask is known without decoding any output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mmalign.core.types import Example, Preference, Prompt

Row = Prompt | Preference | Example
RowKind = Literal["prompts", "preferences", "examples"]
SOURCES: dict[str, str] = {"prompts": "prompts", "preferences": "preferences", "examples": "captioned"}


def prompts_of(rows: Sequence[Any]) -> Sequence[Prompt]:
    """Return the prompt of each row; rows that are made by indexing say their prompts themselves, by `prompts()`."""
    if hasattr(rows, "prompts"):
        return rows.prompts()
    return [prompt_of(row) for row in rows]


def prompt_of(row: Row) -> Prompt:
    """Return what a row asks: itself where it is a prompt."""
    return row if isinstance(row, Prompt) else row.prompt


def units_of(rows: Sequence[Any]) -> Sequence[Any]:
    """Return what rows are told apart by where some are held out: their own word for it, or their prompts."""
    return rows.units() if hasattr(rows, "units") else prompts_of(rows)


def kind_of_rows(rows: Sequence[Any]) -> RowKind:
    """Return what the rows are; rows that are made when they are indexed say it themselves, by `row_kind`."""
    if (kind := getattr(rows, "row_kind", None)) is not None:
        return kind
    if getattr(rows, "kind", None) is not None:
        return "preferences"
    first = rows[0] if isinstance(rows, list | tuple) and rows else None
    return "preferences" if isinstance(first, Preference) else "examples" if isinstance(first, Example) else "prompts"


__all__ = ["SOURCES", "Row", "RowKind", "kind_of_rows", "prompt_of", "prompts_of", "units_of"]
