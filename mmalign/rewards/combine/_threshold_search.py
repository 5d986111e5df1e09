"""Which point to try next by Nelder and Mead's simplex, from all points that were tried before and their values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Tried = list[tuple[tuple[float, ...], float]]
_TOLERANCE = 0.01  # of points and values, as in the paper's configuration


class _Ask(Exception):
    """The value at a point is wanted that nobody has measured."""

    def __init__(self, point: tuple[float, ...]) -> None:
        self.point = point


def next_point(start: Sequence[float], reach: float, tried: Tried) -> tuple[float, ...]:
    """The point to measure next, of those at which a larger value is sought; the best one once the simplex is small.

    SciPy's `minimize(method="Nelder-Mead")` (reflection 1, expansion 2, contraction 1/2, shrinkage 1/2, as in
    2310.04373) is begun afresh and given the values that were measured, in their order, up to the first that it lacks:
    so the search is a function of its history, which is all of its state.

    Args:
        start: the first point, (K,).
        reach: the others of the first simplex lie so far from it, along one axis each.
        tried: points in the order in which they were asked for, with their values.
    """
    from scipy.optimize import minimize

    measured = iter(tried)

    def loss(point: np.ndarray) -> float:
        known = next(measured, None)
        if known is None:
            raise _Ask(tuple(point.tolist()))
        return -known[1]

    simplex = np.vstack([np.array(start, float), np.array(start, float) + reach * np.eye(len(start))])
    options = {"initial_simplex": simplex, "xatol": _TOLERANCE, "fatol": _TOLERANCE}
    try:
        minimize(loss, simplex[0], method="Nelder-Mead", options=options)
    except _Ask as asked:
        return asked.point
    return max(tried, key=lambda each: each[1])[0]
