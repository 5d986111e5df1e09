"""Printing result tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_rows(rows: Sequence[Any]) -> None:
    """The before/after table, if there is one."""
    from rich.console import Console

    from mmalign.evaluation.table import summary_table

    if rows:
        Console().print(summary_table(rows))
