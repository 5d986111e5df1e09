"""How many rows are looked into before a run starts: all of them, or of very many an even share, which is said.

Rows that are made when they are indexed say what is wrong with them then, so what is not looked into here stops a run
later and with the same sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")

MOST = 20_000

log = logging.getLogger("mmalign")


def sampled(rows: Sequence[Row]) -> Sequence[Row]:
    """Return `rows` if there are at most `MOST`, else every k-th of them."""
    return rows[:: -(-len(rows) // MOST)] if len(rows) > MOST else rows


def say_sampled(rows: Sequence[Row]) -> None:
    """Warn if `sampled` leaves rows out, with both numbers."""
    if len(rows) > MOST:
        log.warning(
            "data: of %s rows, %s at even distances are looked into for files, columns and lengths; the others are "
            "when they are read.",
            *(f"{count:,}" for count in (len(rows), len(sampled(rows)))),
        )


__all__ = ["sampled", "say_sampled"]
