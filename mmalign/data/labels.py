"""Which of two outputs was preferred, where a column of the file says it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from mmalign.core.errors import DataError, shown
from mmalign.data.table import Table

log = logging.getLogger("mmalign")

OWN = "label"  # of files that name it as objectives do, where it may be left out


def require_label(table: Table, label: str, chosen: str) -> None:
    """DataError if the file has no such column, or has one for its first output that nobody named."""
    if label not in (OWN, ""):
        table.require(label)
        return
    first = f"label{chosen[-2:]}"
    if chosen[-2:] in ("_0", "_1") and first in table.columns:
        raise DataError(
            f"{table.file}: column '{first}' says whether '{chosen}' was preferred; set data.label: {first} to follow "
            "it."
        )


def label_of(table: Table, at: int, label: str) -> float | None:
    """P(chosen is better) of a row, None where it does not say; DataError for all else than a number in [0, 1]."""
    cell = table.row(at).get(label)
    if not label or (cell in (None, "") and label == OWN):
        return None
    try:
        value = float(cell) if isinstance(cell, str | int | float) and not isinstance(cell, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{table.place(at)}: '{label}' is {shown(cell)}; expected P(chosen is better) in [0, 1].")
    return value


def verdicts(table: Table, rows: Sequence[int], label: str, sides: tuple[str, str]) -> set[int]:
    """Return the rows in which the second of `sides` was preferred; says how many those are, and how many ties."""
    if label not in table.columns:
        return set()
    labels = {}
    for at in rows:
        try:
            labels[at] = label_of(table, at, label)
        except DataError:  # told with all other faults of the rows
            continue
    swapped, ties = {at for at, value in labels.items() if value == 0}, sum(value == 0.5 for value in labels.values())
    if swapped or ties:
        log.warning(
            "%s: by '%s', '%s' was preferred in %d of %d comparisons, which are swapped, and %d are ties, trained on "
            "as such.",
            *(table.file, label, sides[1], len(swapped), len(rows), ties),
        )
    return swapped


__all__ = ["label_of", "require_label", "verdicts"]
