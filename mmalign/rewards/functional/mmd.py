"""Maximum mean discrepancy with a Gaussian kernel (KAD when taken times 100), and each row's credit.

MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),  k(a, b) = exp(-|a - b|² / (2 h²))
(Gretton et al. 2012, eq. 3, unbiased). KAD = 100 MMD² with h the median distance within the *reference*
(Chung et al. 2025, arXiv 2502.15602). Unbiased means negative for sets more alike than chance; it is never clipped.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor


def median_bandwidth(reference: Float[Tensor, "M D"]) -> float:
    """The median pairwise distance within the reference (a collapsed evaluated set must not set its own ruler).

    Raises:
        ValueError: fewer than 2 rows, or at least half of all pairs equal (the bandwidth would be 0).
    """
    if len(reference) < 2:
        raise ValueError(f"a bandwidth needs at least 2 reference rows, got {len(reference)}")
    median = float(torch.pdist(reference.detach().double()).median())
    if median == 0:
        raise ValueError(
            "at least half of the reference pairs are equal, so their median distance is 0; set a bandwidth"
        )
    return median


def self_likeness(reference: Float[Tensor, "M D"], bandwidth: float) -> float:
    """mean_{i≠j} k(y_i, y_j): what only the reference decides, for callers that ask again and again."""
    return float(_pair_mean(_kernel(reference.detach(), reference.detach(), bandwidth)))


def mmd(
    x: Float[Tensor, "N D"],
    reference: Float[Tensor, "M D"],
    bandwidth: float | None = None,
    within_reference: float | None = None,
) -> Float[Tensor, ""]:
    """Unbiased MMD² of the rows `x` from `reference`, float64, differentiable in `x`; bandwidth None: the median.

    `within_reference`: its `self_likeness`, where it is known.
    """
    _enough(x, reference)
    h = bandwidth or median_bandwidth(reference)
    other = self_likeness(reference, h) if within_reference is None else within_reference
    return _pair_mean(_kernel(x, x, h)) + other - 2 * _kernel(x, reference.detach(), h).mean()


def mmd_of_swaps(
    kept: Float[Tensor, "N D"],
    other: Float[Tensor, "N D"],
    start: int,
    reference: Float[Tensor, "M D"],
    bandwidth: float,
    within_reference: float,
) -> Float[Tensor, " S"]:
    """MMD² of `kept` with row i replaced by row i of `other`, for each i from `start`; one kernel row per exchange.

    `within_reference`: the reference's `self_likeness`.
    """
    _enough(kept, reference)
    n, places = len(kept), torch.arange(start, len(kept), device=kept.device)
    rivals = other.detach()[start:]
    own = _kernel(kept.detach(), kept.detach(), bandwidth).sum(1) - 1
    cross = _kernel(rivals, kept.detach(), bandwidth)
    theirs = cross.sum(1) - cross[places - start, places]
    within = (own.sum() + 2 * (theirs - own[start:])) / (n * (n - 1))
    near = _kernel(kept.detach(), reference.detach(), bandwidth).mean(1)
    across = (near.sum() - near[start:] + _kernel(rivals, reference.detach(), bandwidth).mean(1)) / n
    return within + within_reference - 2 * across


def kad(x: Float[Tensor, "N D"], reference: Float[Tensor, "M D"], bandwidth: float | None = None) -> Float[Tensor, ""]:
    """Kernel audio distance, 100 times `mmd` of the same arguments; 0 between equal distributions.

    Unbiased, so that an estimate may be below 0.
    """
    return 100 * mmd(x, reference, bandwidth)


def mmd_credit(
    x: Float[Tensor, "N D"], reference: Float[Tensor, "M D"], bandwidth: float | None = None
) -> Float[Tensor, " N"]:
    """Each row's contribution to *minus* MMD²: exactly MMD²(X without i) - MMD²(X); mean 0, higher is better.

    With c_i = mean_y k(x_i, y) and q_i = mean_{j≠i} k(x_i, x_j) (the two halves of the witness function),
    credit_i = 2 (c_i - mean c)/(n - 1) - 2 (q_i - mean q)/(n - 2). For n = 2 leaving one out has no MMD, and every q_i
    is equal: the second term is 0.
    """
    _enough(x, reference)
    rows, n = x.detach(), len(x)
    h = bandwidth or median_bandwidth(reference)
    near_reference = _kernel(rows, reference.detach(), h).mean(1)
    near_itself = (_kernel(rows, rows, h).sum(1) - 1) / (n - 1)
    pull = 2 * (near_reference - near_reference.mean()) / (n - 1)
    return pull - 2 * (near_itself - near_itself.mean()) / max(n - 2, 1)


def _kernel(a: Tensor, b: Tensor, bandwidth: float) -> Float[Tensor, "N M"]:
    # Differences, not |a|² + |b|² - 2ab: no cancellation, and the diagonal of k(x, x) is exactly 1. `cdist` takes them
    # without a table of N x M x D, which of 2000 reference rows with 512 features alone would fill 16 GB.
    apart = torch.cdist(a.double(), b.double().to(a.device), compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-apart.square() / (2 * bandwidth**2))


def _pair_mean(kernel: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))


def _enough(x: Tensor, reference: Tensor) -> None:
    if x.ndim != 2 or reference.ndim != 2 or x.shape[1] != reference.shape[1]:
        shapes = f"{tuple(x.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"MMD compares rows (N, D) with reference rows (M, D), got {shapes}")
    if min(len(x), len(reference)) < 2:
        raise ValueError(f"MMD needs at least 2 rows on both sides, got {len(x)} and {len(reference)}")
