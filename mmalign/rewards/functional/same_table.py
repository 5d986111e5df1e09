"""Are two results of queries the same table?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = Sequence[Any]  # None, int, float, str or bytes
_WORK = 1_000_000  # rows compared while looking for the order of columns, at most


def same_table(
    first: Sequence[Row],
    second: Sequence[Row],
    ordered: bool = False,
    free_columns: bool = True,
    tolerance: float = 1e-6,
) -> bool:
    """Equal numbers of columns, and equal rows: as a sequence if `ordered`, else as a multiset.

    Args:
        first: rows of one width.
        second: rows of one width.
        ordered: the order of rows counts.
        free_columns: columns may stand in any order, the same one in every row.
        tolerance: relative (and absolute) difference of numbers that are the same; 1 and 1.0 are, 1 and "1" are not.
    """
    if len(first) != len(second):
        return False
    if not first:
        return True
    if len(first[0]) != len(second[0]):
        return False
    left: list[Row] = list(zip(*first, strict=True))
    right: list[Row] = list(zip(*second, strict=True))
    if not free_columns or len(left) <= 1:
        return _equal(left, right, ordered, tolerance)
    return _any_order(left, right, ordered, tolerance)


def _any_order(left: list[Row], right: list[Row], ordered: bool, tolerance: float) -> bool:
    """Depth first over assignments of columns; a prefix that differs ends its branch, equal columns are one."""
    branches: list[tuple[int, ...]] = [()]
    for _ in range(max(len(left) ** 2, _WORK // len(left[0]))):
        if not branches:
            return False
        taken = branches.pop()
        depth = len(taken)
        if depth == len(left):
            return True
        tried: list[Row] = []
        for j in range(len(right)):
            if j in taken or right[j] in tried:
                continue
            tried.append(right[j])
            if _equal(left[: depth + 1], [right[k] for k in (*taken, j)], ordered, tolerance):
                branches.append((*taken, j))
    return False


def _equal(left: Sequence[Row], right: Sequence[Row], ordered: bool, tolerance: float) -> bool:
    """Columns of two tables in a fixed order."""
    one, two = list(zip(*left, strict=True)), list(zip(*right, strict=True))
    if not ordered:
        one, two = sorted(one, key=_place), sorted(two, key=_place)
    return all(_same(a, b, tolerance) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


def _same(a: object, b: object, tolerance: float) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return type(a) is type(b) and a == b


def _place(row: Row) -> list[tuple[int, Any]]:
    """A sorting key over mixed types; numbers by six digits, so that rounding does not change the order."""
    return [_rank(value) for value in row]


def _rank(value: object) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, float(f"{float(value):.5e}") if abs(value) < 1e300 else float(value > 0)
    return (2, value) if isinstance(value, str) else (3, value)
