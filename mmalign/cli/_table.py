"""Printing result tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_rows(rows: Sequence[Any], title: str = "Held-out prompts") -> None:
    """The before/after table of the prompts that `title` names, if there is one."""
    from rich.console import Console

    from mmalign.evaluation.table import summary_table

    if rows:
        Console().print(summary_table(rows, title))
