"""How far a ranking of several outputs agrees with a better one."""

from __future__ import annotations

from collections.abc import Sequence


def rank_agreement(scores: Sequence[float], gold: Sequence[float]) -> float | None:
    """1 - Σ penalty / Σ w over the pairs that `gold` orders, in [0, 1]; None where it orders none.

    The ranking reward of RewardAnything (2506.03637): a pair weighs w = 1 + |difference of gold|; the wrong order costs
    w, equal scores w / 2, the right order nothing.

    Args:
        scores: of N outputs, by the ranking that is judged.
        gold: of the same outputs, by the better one.
    """
    penalty = total = 0.0
    for i, right in enumerate(gold):
        for j in range(i):
            if right == gold[j]:
                continue
            weight = 1 + abs(right - gold[j])
            agreed = (scores[i] - scores[j]) * (right - gold[j])
            total += weight
            penalty += weight if agreed < 0 else weight / 2 if agreed == 0 else 0.0
    return 1 - penalty / total if total else None
