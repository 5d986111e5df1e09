"""Is a number near enough to another?"""

from __future__ import annotations


def relaxed_accuracy(answer: float, truth: float, tolerance: float = 0.05, graded: bool = False) -> float:
    """1 if |answer - truth| ≤ tolerance × |truth|, else 0 (ChartQA, Masry et al. 2022); a truth of 0 is exact.

    Args:
        answer: finite.
        truth: finite.
        tolerance: relative; the bound itself is within.
        graded: max(0, 1 - |answer - truth| / (tolerance |truth|)) instead, which tells near from far.
    """
    allowed, gap = tolerance * abs(truth), abs(answer - truth)
    if not allowed or not graded:
        # The slack keeps the bound inclusive: 1.05 - 1 is a little more than .05 in floating point.
        return float(gap <= allowed * (1 + 1e-9))
    return max(0.0, 1 - gap / allowed)
