"""Rows that cannot be read are left out where that is asked for, and counted."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar

from mmalign.core.errors import DataError
from mmalign.data.table import Table

SAID = 3  # reasons

log = logging.getLogger("mmalign")


class SomeRows(Protocol):
    """Some `rows` of a table."""

    @property
    def table(self) -> Table:
        """The table they are of."""
        ...

    @property
    def rows(self) -> Sequence[int]:
        """Their places in it."""
        ...

    def only(self, rows: Sequence[int]) -> Self:
        """Return the same table with other rows."""
        ...


Rows = TypeVar("Rows", bound=SomeRows)


def without_bad(rows: Rows, fault_at: Callable[[int], str], before: Sequence[str] = ()) -> Rows:
    """Return `rows` without those that have a fault, and say how many and what is wrong with the first ones.

    Args:
        rows: of a table.
        fault_at: what is wrong with a row, "" for nothing.
        before: what else was left out.

    Raises:
        DataError: none is left.
    """
    whole, faults = array("q"), list(before)
    for at in rows.rows:
        if fault := fault_at(at):
            faults.append(fault)
        else:
            whole.append(at)
    if not len(whole):
        raise DataError(f"{rows.table.file}: skip_bad leaves no row; the first of {len(faults)}: {faults[0]}")
    if faults:
        log.warning(
            "%s: skip_bad: %d rows and files are left out, %d rows stay; the first: %s",
            *(rows.table.file, len(faults), len(whole), " · ".join(faults[:SAID])),
        )
    return rows.only(whole if faults else rows.rows)


__all__ = ["without_bad"]
