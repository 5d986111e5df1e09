"""Columns of the data, found in `Prompt.meta`: how rewards read their values.

A reward says in `needs` which columns it cannot do without; a single row without one is NOT_APPLICABLE, so that rewards
of different tasks can share a data set (`mmalign.rewards.engine.traits` stops a run whose data has it nowhere).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.rewards.parsing import Unreadable, solution_of

T = TypeVar("T")


def missing(prompt: Prompt, needs: Sequence[str], row: int) -> str:
    """A sentence if a column is not there (or None), else ""."""
    absent = [column for column in needs if prompt.meta.get(column) is None]
    if not absent:
        return ""
    present = ", ".join(map(str, prompt.meta)) or "nothing"
    return f"row {row} ('{prompt.text[:40]}'): Prompt.meta has no '{absent[0]}'; it holds {present}"


class NeedsColumn:
    """A reward that needs the one column of `Prompt.meta` that its option `column` names."""

    column: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The column without which a row is NOT_APPLICABLE."""
        return (self.column,)


def plain_data(value: object, column: str) -> Any:
    """A column's lists and objects, also where a table holds them as JSON text, as CSV files must.

    Raises:
        ValueError: a text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Prompt.meta['{column}'] is a text that is no JSON ({str(error)[:60]}): {value[:60]!r}"
        ) from None


def references_of(prompt: Prompt, column: str) -> list[str]:
    """The texts in a column: one, or several that are equally right; switches are yes or no, 5.0 is 5.

    Raises:
        ValueError: it holds none, or something that has no text (null, NaN, an object).
    """
    value = prompt.meta[column]
    texts = [_as_text(v) for v in (value if isinstance(value, list | tuple) else [value])]
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"Prompt.meta['{column}'] holds no text: {str(value)[:60]!r}")
    return texts


def solutions_of(prompt: Prompt, column: str) -> list[str]:
    """The right answers in a column, out of worked solutions too (`parsing.solution_of`). ValueError as above."""
    return [from_data(column, lambda text=text: solution_of(text)) for text in references_of(prompt, column)]  # type: ignore[misc]


def distinct(each: Sequence[Sequence[str]]) -> tuple[list[str], Bool[Tensor, "B N"]]:
    """All texts of all rows once each, and which of them are in which row."""
    texts = sorted({text for row in each for text in row})
    place = {text: j for j, text in enumerate(texts)}
    present = torch.zeros(len(each), len(texts), dtype=torch.bool)
    for i, row in enumerate(each):
        present[i, [place[text] for text in row]] = True
    return texts, present


def from_data(column: str, read: Callable[[], T]) -> T:
    """`read()` of a column's text; what cannot be read there is the data's fault, not the output's: a ValueError."""
    try:
        return read()
    except Unreadable as error:
        raise ValueError(f"Prompt.meta['{column}']: {error}") from None


def _as_text(value: object) -> str:
    """A value as text, "" where it has none. Tables make floats of whole numbers where a row has no value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            ""
            if not math.isfinite(value)
            else f"{value:.0f}"
            if value.is_integer() and abs(value) < 1e15
            else repr(value)
        )
    try:
        return str(value) if isinstance(value, str | int) else ""
    except ValueError:  # a whole number of more digits than Python writes out
        return ""
