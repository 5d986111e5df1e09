"""Intervals of shares and of differences of shares in closed form, where resampling promises more than it holds.

At p = 0.02 and 64 rows the bootstrap's "95 %" interval of a rate covers it in about 72 % of samples, and of 64 hits in
64 rows it says [1, 1]. Wilson's score interval (JASA 22, 1927) and, for a paired difference, Wald's interval after half
a count is added to each of the four cells (Agresti and Min, Statistics in Medicine 24, 2005) hold what they say.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

__all__ = ["are_rates", "paired_rate_interval", "rate_interval"]


def are_rates(*sides: Float[ndarray, " B"]) -> bool:
    """Is every value 0 or 1 (NaN is neither), so that their mean is a rate?"""
    return all(bool(np.isin(side, (0.0, 1.0)).all()) for side in sides)


def rate_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the probability behind `hits` of `n` independent rows."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def paired_rate_interval(
    before: Float[ndarray, " B"], after: Float[ndarray, " B"], level: float = 0.95
) -> tuple[float, float]:
    """Agresti and Min's interval of P(after = 1) - P(before = 1) over pairs of 0/1 values, within [-1, 1]."""
    from scipy.special import ndtri

    gained = float(((after == 1) & (before == 0)).sum()) + 0.5
    lost = float(((after == 0) & (before == 1)).sum()) + 0.5
    n = len(before) + 2.0
    centre = (gained - lost) / n
    reach = float(ndtri((1 + level) / 2)) * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return max(-1.0, float(centre - reach)), min(1.0, float(centre + reach))
