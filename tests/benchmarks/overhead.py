"""A training step through the loop against the same model calls made bare: what the library itself costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import problem


def seconds(run: Callable[[], None]) -> float:
    """Processor seconds of one call: what else the machine does is not counted."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(repeats: int = 7) -> dict[str, Any]:
    """Ratio of medians, the two taken in turn; one ratio per objective."""
    found: dict[str, Any] = {}
    for name in ("grpo", "dpo", "r0"):
        adapter = problem.generator()
        step = problem.one_step(*getattr(problem, name)(adapter))
        bare = getattr(problem.Bare(adapter), name)
        bare()
        pairs = [(seconds(step), seconds(bare)) for _ in range(repeats)]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(a / b for a, b in pairs)
        found[name] = {
            "step_seconds": round(ours, 4),
            "bare_seconds": round(theirs, 4),
            "ratio": round(ours / theirs, 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    return found
