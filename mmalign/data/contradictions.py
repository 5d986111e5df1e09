"""Comparisons that say nothing, or take themselves back: counted and told, not left out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Container, Hashable, Sequence

from mmalign.data.table import Table

log = logging.getLogger("mmalign")


def warn_of_contradictions(
    table: Table,
    rows: Sequence[int],
    columns: tuple[str, str, str],
    about: Sequence[str],
    swapped: Container[int] = (),
) -> None:
    """Say how many rows prefer an output to itself, and how many stand in both directions.

    Args:
        table: of comparisons.
        rows: those that are read.
        columns: of the prompt, the chosen and the rejected output.
        about: columns of what the prompt is about.
        swapped: rows whose label says that the rejected output is the better one.
    """
    order = (*columns[1:], columns[0], *about)
    compared = {at: [_key(table.row(at).get(column)) for column in order] for at in rows}
    compared = {
        at: [b, a, *question] if at in swapped else [a, b, *question] for at, (a, b, *question) in compared.items()
    }
    ties = [at for at, (chosen, rejected, *_) in compared.items() if chosen == rejected]
    comparisons = {tuple(parts) for parts in compared.values()}
    both = [at for at, (a, b, *question) in compared.items() if a != b and (b, a, *question) in comparisons]
    for places, what in (
        (ties, f"hold the same in '{columns[1]}' and '{columns[2]}'"),
        (both, "stand in both directions"),
    ):
        if places:
            log.warning(
                "%s: %d of %d comparisons %s (the first: %s). They are trained on as they are.",
                table.file, len(places), len(rows), what, table.place(places[0]),
            )  # fmt: skip


def _key(value: object) -> Hashable:
    """What a cell is told apart by; bytes by their digest."""
    if isinstance(value, str):
        return value
    raw = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.sha256(raw).digest()
