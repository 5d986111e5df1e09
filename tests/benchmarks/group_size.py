"""The cost of a step against the group size: it should grow no faster than the rows do."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks import problem
from tests.benchmarks.overhead import seconds

SIZES = (4, 8, 16)


def measure(repeats: int = 5) -> dict[str, Any]:
    """Seconds per row at each group size, and the worst ratio to the smallest size's."""
    adapter = problem.generator()
    steps = {size: problem.one_step(*problem.grpo(adapter, group=size, prompts=2)) for size in SIZES}
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(repeats):
        for size, step in steps.items():
            taken[size].append(seconds(step) / (2 * size))
    per_row = {size: statistics.median(values) for size, values in taken.items()}
    return {
        "seconds_per_row": {str(size): round(value, 5) for size, value in per_row.items()},
        "worst_ratio_to_smallest": round(max(per_row.values()) / per_row[SIZES[0]], 3),
    }
