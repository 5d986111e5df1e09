"""How many characters apart two texts are."""

from __future__ import annotations

import numpy as np


def edit_distance(first: str, second: str) -> int:
    """The least number of characters to insert, delete or replace that makes one text of the other (Levenshtein 1966).

    Time and memory are of the product and the sum of both lengths.
    """
    codes = np.array([ord(c) for c in second], dtype=np.int64)
    steps = np.arange(len(second) + 1)
    row = steps.copy()
    for i, char in enumerate(first, 1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(char)))  # deleted, or replaced
        row = np.minimum.accumulate(np.concatenate([[i], kept]) - steps) + steps  # inserted
    return int(row[-1])


def text_similarity(first: str, second: str) -> float:
    """1 - edit distance / the longer length, in [0, 1]; 1 for two empty texts."""
    longest = max(len(first), len(second))
    return 1.0 if not longest else 1 - edit_distance(first, second) / longest


def words_similarity(first: list[str], second: list[str]) -> float:
    """`text_similarity` of words in any order, in [0, 1]: each with at most one of the others, paired for the best sum.

    A pair counts by its longer word; words without a partner count as wholly wrong.
    """
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return float(not first and not second)
    right = np.array([[max(len(a), len(b)) - edit_distance(a, b) for b in second] for a in first])
    rows, columns = linear_sum_assignment(right, maximize=True)
    paired = sum(max(len(first[i]), len(second[j])) for i, j in zip(rows, columns, strict=True))
    alone = sum(len(a) for i, a in enumerate(first) if i not in set(rows))
    alone += sum(len(b) for j, b in enumerate(second) if j not in set(columns))
    return float(right[rows, columns].sum() / max(1, paired + alone))
