"""The change of each measure by subset: prompts that share a value of a column, or are short or long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmalign.core.types import Prompt
from mmalign.evaluation.bootstrap import Interval, paired_interval
from mmalign.evaluation.run_record import RunRecord

__all__ = ["Subsets", "subsets"]

MOST_VALUES, MOST_COLUMNS, LEAST_PROMPTS, MOST_MEASURES = 8, 4, 2, 5


@dataclass
class Subsets:
    """One column's values: per row its value, how many prompts have it, and the changes of `measures`."""

    column: str
    measures: list[str]
    rows: list[tuple[str, int, list[Interval]]] = field(default_factory=list)


def subsets(record: RunRecord) -> list[Subsets]:
    """Subsets by every column that has two to eight values, each of at least two prompts; else by words in the prompt.

    Nothing where before and after were not measured on the same prompts. Measures are the rewards of rows, those that
    were trained on first, `MOST_MEASURES` at most.
    """
    before, after = record.before, record.after
    if before is None or after is None or [p.question for p in before.prompts] != [p.question for p in after.prompts]:
        return []
    first = {name: role != "trained" for name, role in record.roles.items()}
    shared = [name for name in after.scores if name in before.scores]
    measures = sorted(shared, key=lambda name: first.get(name, True))[:MOST_MEASURES]
    columns = []
    for column, values in _columns(after.prompts, after.group):
        rows = []
        for value in _ordered(values):
            of = np.array([each == value for each in values])
            rows.append((value, len(set(after.group[of].tolist())), [_change(record, name, of) for name in measures]))
        columns.append(Subsets(column, measures, rows))
    return columns


def _change(record: RunRecord, name: str, of: Bool[np.ndarray, " B"]) -> Interval:
    assert record.before is not None and record.after is not None, "asked only where both are there"
    return paired_interval(record.before.values(name)[of], record.after.values(name)[of], record.after.group[of])


def _columns(prompts: list[Prompt], group: Any) -> list[tuple[str, list[str | None]]]:
    """Columns that divide the prompts, with each row's value as text (None: it has none)."""
    names = dict.fromkeys(name for prompt in prompts for name in prompt.meta)
    columns = [(name, [_text(prompt.meta.get(name)) for prompt in prompts]) for name in names]
    dividing = [(name, values) for name, values in columns if _divides(values, group)]
    return dividing[:MOST_COLUMNS] or _by_length(prompts, group)


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | bool) and len(str(value)) <= 40 else None


def _divides(values: list[str | None], group: Any) -> bool:
    prompts = {(number, value) for number, value in zip(group.tolist(), values, strict=True) if value is not None}
    counts = Counter(value for _, value in prompts)
    return 2 <= len(counts) <= MOST_VALUES and min(counts.values()) >= LEAST_PROMPTS


def _by_length(prompts: list[Prompt], group: Any) -> list[tuple[str, list[str | None]]]:
    """Short and long prompts, parted at the median of their words; nothing where all are alike."""
    lengths = [len(prompt.shown.split()) for prompt in prompts]
    middle = int(np.median(lengths))
    values: list[str | None] = [f"up to {middle}" if n <= middle else f"more than {middle}" for n in lengths]
    return [("words in the prompt", values)] if _divides(values, group) else []


def _ordered(values: list[str | None]) -> list[str]:
    """Numbers by size, words in the order of their first appearance."""
    seen = list(dict.fromkeys(value for value in values if value is not None))
    if all(value.lstrip("-").isdigit() for value in seen):
        return sorted(seen, key=int)
    return sorted(seen, key=lambda value: value.startswith("more than "))
