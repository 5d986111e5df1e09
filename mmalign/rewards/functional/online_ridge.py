"""Ridge regression from sums alone: rows may come one batch after another, in any order."""

from __future__ import annotations

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor


def ridge_sums(features: Float[Tensor, "N D"], values: Float[Tensor, " N"]) -> Float[Tensor, "D1 D2"]:
    """Σ z zᵀ of z = (x, 1, y), (D + 2, D + 2) float64: all that ridge regression needs of N rows; it adds up."""
    ones = torch.ones(len(features), 1, dtype=torch.float64)
    rows = torch.cat([features.double(), ones, values.double()[:, None]], 1)
    return rows.T @ rows


def ridge_weights(sums: Float[Tensor, "D1 D2"], penalty: float) -> Float[Tensor, " D"]:
    """The (w, b) that minimise mean (y - wᵀx - b)² + penalty |w|², float64; the constant is not penalised.

    `sums` may be those of all rows or their mean over processes: the solution is the same.
    """
    count = sums[-2, -2]
    gram, cross = sums[:-1, :-1] / count, sums[:-1, -1] / count
    shrink = penalty * torch.eye(len(gram), dtype=gram.dtype)
    shrink[-1, -1] = 0.0
    return torch.linalg.solve(gram + shrink, cross)
