"""Count, mean and scatter of rows seen in parts: statistics of sets too large to hold at once.

Parts add up by Chan et al. 1983: scatter = scatter_a + scatter_b + n_a n_b / (n_a + n_b) δ δᵀ, δ = mean_b - mean_a.
Everything is float64 and centred before squaring; a part may be a single row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.rewards.functional.frechet import Gaussian


@dataclass
class Moments:
    """`count` rows with this `mean` (D,) and `scatter` (D, D), the sum of (x - mean)(x - mean)ᵀ; float64."""

    count: int
    mean: Float[Tensor, " D"]
    scatter: Float[Tensor, "D D"]

    @classmethod
    def of(cls, rows: Float[Tensor, "N D"]) -> Moments:
        """The moments of N >= 1 rows, without gradient. Raises ValueError for no rows, or another shape than (N, D)."""
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"moments need at least 1 row (N, D), got shape {tuple(rows.shape)}")
        rows = rows.detach().double()
        centred = rows - rows.mean(0)
        return cls(len(rows), rows.mean(0), centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        count, step = self.count + other.count, other.mean - self.mean
        between = torch.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), self.scatter + other.scatter + between)

    def gaussian(self) -> Gaussian:
        """The Gaussian with these moments and unbiased covariance. Raises ValueError below 2 rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        return Gaussian(self.mean, self.scatter / (self.count - 1), self.count)
