"""Texts in the columns of a row, and numbers that are equal where values are."""

from __future__ import annotations

from mmalign.core.digests import value_digest
from mmalign.core.errors import DataError
from mmalign.core.texts import unpacked
from mmalign.core.types import Prompt


def texts_of(prompt: Prompt, column: str, place: str) -> list[str]:
    """The texts in a column: one, a list of them, or JSON of a list; [] where there is none.

    Raises:
        DataError: something that is no text.
    """
    try:
        value = unpacked(prompt.meta.get(column), f"'{column}'", begins=("[",))
    except ValueError as error:
        raise DataError(f"{place}: {error}.") from None
    if value in (None, ""):
        return []
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    if odd := [text for text in texts if not isinstance(text, str) or not text.strip()]:
        raise DataError(f"{place}: '{column}' holds {str(odd[0])[:40]!r}; expected a text or a list of texts.")
    return texts


def key_of(value: object) -> int:
    """A whole number that is equal for equal values, in every process, and differs for others (but for 1 in 2⁶²)."""
    return int.from_bytes(value_digest(value)[:8], "big") >> 2


__all__ = ["key_of", "texts_of"]
