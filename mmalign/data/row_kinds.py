"""Rows of a data source are prompts, preferences or examples; what they ask is known without decoding any output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from mmalign.core.types import Example, Preference, Prompt

Row = Prompt | Preference | Example
RowKind = Literal["prompts", "preferences", "examples"]
SOURCES: dict[str, str] = {"prompts": "prompts", "preferences": "preferences", "examples": "captioned"}


@runtime_checkable
class KnowsPrompts(Protocol):
    """Rows that are made by indexing, and know their prompts without it."""

    def prompts(self) -> Sequence[Prompt]:
        """Return the prompt of each row."""
        ...


@runtime_checkable
class KnowsUnits(Protocol):
    """Rows that say themselves what they are told apart by."""

    def units(self) -> Sequence[Any]:
        """Return one hashable value or prompt for each row."""
        ...


@runtime_checkable
class KnowsFaults(Protocol):
    """Rows, or media of a row, that can be checked without being decoded."""

    def faults(self) -> list[str]:
        """Return a sentence for each row that cannot be read."""
        ...


@runtime_checkable
class HasShapes(Protocol):
    """Rows that know what the headers of their pictures or sounds say."""

    def shapes(self) -> Iterator[tuple[str, Any]]:
        """Yield where each of them stands, and its shape."""
        ...


def prompts_of(rows: Sequence[Any]) -> Sequence[Prompt]:
    """Return the prompt of each row; rows that are made by indexing say their prompts themselves."""
    return rows.prompts() if isinstance(rows, KnowsPrompts) else [prompt_of(row) for row in rows]


def modality_of_rows(rows: Sequence[Any]) -> str | None:
    """Return the modality of the outputs that rows hold ("text", "image", "audio"); None of prompts."""
    return getattr(rows, "kind", None)


def prompt_of(row: Row) -> Prompt:
    """Return what a row asks: itself where it is a prompt."""
    return row if isinstance(row, Prompt) else row.prompt


def units_of(rows: Sequence[Any]) -> Sequence[Any]:
    """Return what rows are told apart by where some are held out: their own word for it, or their prompts."""
    return rows.units() if isinstance(rows, KnowsUnits) else prompts_of(rows)


def kind_of_rows(rows: Sequence[Any]) -> RowKind:
    """Return what the rows are; rows that are made when they are indexed say it themselves, by `row_kind`."""
    if (kind := getattr(rows, "row_kind", None)) is not None:
        return kind
    if modality_of_rows(rows) is not None:
        return "preferences"
    first = rows[0] if isinstance(rows, list | tuple) and rows else None
    return "preferences" if isinstance(first, Preference) else "examples" if isinstance(first, Example) else "prompts"


__all__ = [
    "SOURCES",
    "HasShapes",
    "KnowsFaults",
    "KnowsPrompts",
    "KnowsUnits",
    "Row",
    "RowKind",
    "kind_of_rows",
    "modality_of_rows",
    "prompt_of",
    "prompts_of",
    "units_of",
]
