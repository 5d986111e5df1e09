"""How much of a sequence is said again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def repetition_penalty(items: Sequence[Hashable], n: int = 3, max_penalty: float = -1.0) -> float:
    """max_penalty × (1 - distinct n-grams / n-grams), in [max_penalty, 0]; 0 for fewer than n items.

    (Yeo et al. 2025, 2502.03373, appendix C.2.) Items are token ids, words, lines, …
    """
    total = len(items) - n + 1
    if total <= 0:
        return 0.0
    distinct = len(set(zip(*(items[i:] for i in range(n)), strict=False)))
    return max_penalty * (1 - distinct / total)
