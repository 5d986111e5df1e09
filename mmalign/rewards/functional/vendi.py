"""Vendi score: the effective number of different rows in a set, and each row's credit.

VS_q = exp(H_q(λ)) with λ the eigenvalues of K/n, K_ij the cosine of rows i and j, and H_q the Rényi entropy of order q
(Friedman and Dieng 2023, eq. 1; orders: Pasarkar and Dieng 2024, eq. 3). Between 1 (all equal) and n (all orthogonal),
so a score means nothing without its n.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor

_TINY = 1e-12  # eigenvalues below are rounding, also the slightly negative ones
_TIED = 1e-6  # eigenvalues this near, as a share, are one: float32 features tell no more


def vendi_score_kernel(kernel: Float[Tensor, "N N"], order: float = 1.0) -> Float[Tensor, ""]:
    """The score of a positive semi-definite similarity matrix with ones on its diagonal; float64, differentiable.

    Raises:
        ValueError: not square, or a diagonal other than 1.
    """
    n = len(kernel)
    if kernel.shape != (n, n) or not torch.allclose(kernel.diagonal(), torch.ones_like(kernel.diagonal()), atol=1e-4):
        raise ValueError(f"the Vendi score needs a square kernel with ones on its diagonal, got {tuple(kernel.shape)}")
    return _effective_number(torch.linalg.eigvalsh(kernel.double() / n), order)


def vendi_score(x: Float[Tensor, "N D"], order: float = 1.0) -> Float[Tensor, ""]:
    """The score of N rows under cosine similarity; float64, differentiable in `x`.

    λ are the squared singular values of the unit rows over sqrt(n): of the N x N or the D x D matrix, whichever is
    smaller, without forming either.

    Args:
        x: rows of any length above 0.
        order: q > 0; 1 is Shannon's, larger ones listen to the largest cluster, `math.inf` to it alone.
    """
    return _effective_number(torch.linalg.svdvals(_unit_rows(x)).square(), order)


def vendi_credit(x: Float[Tensor, "N D"], order: float = 1.0) -> Float[Tensor, " N"]:
    """Each row's contribution to the score: the closed-form influence, mean 0, higher is better.

    With M = K/n, the derivative of H_q when weight moves to row i is, up to a constant,
    -n [M log M]_ii (q = 1), q/(1-q) n [M^q]_ii / tr M^q, and -n Σ u_i² / m for q = ∞, over the m eigenvectors u whose
    eigenvalues are the largest one: where several tie, it is the mean over them, which does not hang on how they are
    turned within their space.
    It is given as VS × derivative / (n - 1), the units of leave-one-out, VS(X) - VS(X without i), which it
    approximates.
    """
    if len(x) < 2:
        raise ValueError(f"credit needs at least 2 rows, got {len(x)}")
    u, values, _ = torch.linalg.svd(_unit_rows(x.detach()), full_matrices=False)
    spectrum, n = values.square(), len(x)
    positive = spectrum > _TINY
    u, spectrum = u[:, positive], spectrum[positive]
    if order == 1:
        derivative = -n * u.square() @ (spectrum * spectrum.log())
    elif math.isinf(order):
        leading = spectrum >= (1 - _TIED) * spectrum.max()
        derivative = -n * u[:, leading].square().mean(1)
    else:
        powered = spectrum**order
        derivative = order / (1 - order) * n * (u.square() @ powered) / powered.sum()
    return _effective_number(spectrum, order) * (derivative - derivative.mean()) / (n - 1)


def _unit_rows(x: Tensor) -> Float[Tensor, "N D"]:
    if x.ndim != 2 or not len(x):
        raise ValueError(f"the Vendi score needs rows (N, D) with N at least 1, got shape {tuple(x.shape)}")
    rows = x.double()
    lengths = rows.norm(dim=1, keepdim=True)
    if zero := (lengths == 0).flatten().nonzero().flatten().tolist():
        raise ValueError(f"row {zero[0]} is all zeros and has no direction ({len(zero)} such rows)")
    return rows / lengths / len(x) ** 0.5


def _effective_number(spectrum: Float[Tensor, " K"], order: float) -> Float[Tensor, ""]:
    if not order > 0:
        raise ValueError(f"the order of a Vendi score is above 0, got {order}")
    spectrum = spectrum[spectrum > _TINY]
    if order == 1:
        return torch.exp(-(spectrum * spectrum.log()).sum())
    if math.isinf(order):
        return 1 / spectrum.max()
    return (spectrum**order).sum() ** (1 / (1 - order))
