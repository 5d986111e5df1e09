"""How features lie: spread out or in clusters, near what belongs together, and what changed between two sets.

Pure functions of N rows of D features; cosines are of the features as they are, not centred.

| measure | source |
|---|---|
| uniformity | Wang & Isola 2020 (2005.10242), eq. 2, t = 2: lower is more evenly spread |
| tolerance | Wang & Liu 2020 (2012.09740), sec. 4: the mean cosine of rows of one class |
| effective rank | Roy & Vetterli 2007: exp of the entropy of the singular values |
| contrastive PCA | Abid et al. 2018 (Nature Communications 9, 2134): eigenvectors of C_target - α C_background |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from mmalign.evaluation.listwise import reciprocal_rank

__all__ = [
    "Directions",
    "class_tolerance",
    "contrastive_pca",
    "effective_rank",
    "first_ranks",
    "reciprocal_ranks",
    "separation",
    "uniformity",
    "unit_rows",
]


def unit_rows(features: Float[ndarray, "N D"]) -> Float[ndarray, "N D"]:
    """The rows at length 1; a row of 0 stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def uniformity(features: Float[ndarray, "N D"], t: float = 2.0) -> float:
    """log of the mean of exp(-t ‖f - g‖²) over pairs of different unit rows, at most 0; ValueError below two rows."""
    if len(features) < 2:
        raise ValueError("uniformity is of two rows at least.")
    cosine = _cosines(features, features)
    squared = np.clip(2 - 2 * cosine[~np.eye(len(features), dtype=bool)], 0, None)
    return float(np.log(np.exp(-t * squared).mean()))


def class_tolerance(features: Float[ndarray, "N D"], labels: Shaped[ndarray, " N"]) -> float:
    """The mean cosine of pairs of different rows with one label, in [-1, 1]; NaN where no two rows share one."""
    same = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
    return float(_cosines(features, features)[same].mean()) if same.any() else float("nan")


def effective_rank(features: Float[ndarray, "N D"]) -> float:
    """exp of the entropy of the centred rows' singular values, in [1, D]: how many directions are in use."""
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    if not (total := values.sum()) > 0:
        return 1.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def first_ranks(
    queries: Float[ndarray, "N D"],
    targets: Float[ndarray, "M D"],
    right: Bool[ndarray, "N M"],
    among: Bool[ndarray, "N M"] | None = None,
) -> Float[ndarray, " N"]:
    """The rank, from 1, of each query's first right target by cosine; NaN where it has none. Recall@k is rank <= k.

    A wrong target that is as near as the right one stands before it.

    Args:
        queries, targets: their features.
        right: which targets are right for a query.
        among: which are looked through; None: all.
    """
    among = np.ones_like(right) if among is None else among
    cosine = _cosines(queries, targets)
    best = np.where(right & among, cosine, -np.inf).max(1)
    before = ((cosine >= best[:, None]) & among & ~right).sum(1)
    return np.where((right & among).any(1), before + 1.0, np.nan)


def reciprocal_ranks(
    queries: Float[ndarray, "N D"],
    targets: Float[ndarray, "M D"],
    right: Bool[ndarray, "N M"],
    among: Bool[ndarray, "N M"] | None = None,
) -> Float[ndarray, " N"]:
    """1 / that rank, with ties the mean over all orders (`listwise.reciprocal_rank`); NaN where there is none."""
    among = np.ones_like(right) if among is None else among
    cosine = _cosines(queries, targets)
    return np.array(
        [
            reciprocal_rank(row[good & seen].tolist(), row[~good & seen].tolist()) if (good & seen).any() else np.nan
            for row, good, seen in zip(cosine, right, among, strict=True)
        ]
    )


class Directions(NamedTuple):
    """`vectors` (D, K), of length 1, that vary in one set and not in the other; their `values` (K,), falling."""

    vectors: Float[ndarray, "D K"]
    values: Float[ndarray, " K"]


def contrastive_pca(
    target: Float[ndarray, "N D"], background: Float[ndarray, "M D"], alpha: float = 1.0, count: int = 1
) -> Directions:
    """The first `count` eigenvectors of C_target - α C_background, covariances of centred rows; α = 0 is plain PCA.

    The sign of a vector is such that the target's mean is at least as far along it as the background's.
    """
    difference = _covariance(target) - alpha * _covariance(background)
    values, vectors = np.linalg.eigh(difference)
    order = np.argsort(-values)[:count]
    chosen = vectors[:, order]
    ahead = (target.mean(0) - background.mean(0)) @ chosen
    return Directions(chosen * np.where(ahead < 0, -1.0, 1.0), values[order])


def separation(target: Float[ndarray, " N"], background: Float[ndarray, " M"]) -> float:
    """AUROC: the probability that a number of the target exceeds one of the background, a tie is half."""
    both = np.concatenate([target, background])
    _, place, count = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    n, m = len(target), len(background)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def _cosines(one: Float[ndarray, "N D"], other: Float[ndarray, "M D"]) -> Float[ndarray, "N M"]:
    return unit_rows(np.asarray(one, float)) @ unit_rows(np.asarray(other, float)).T


def _covariance(rows: Float[ndarray, "N D"]) -> Float[ndarray, "D D"]:
    centred = np.asarray(rows, float) - rows.mean(0)
    covariance: Float[ndarray, "D D"] = centred.T @ centred / max(len(rows) - 1, 1)
    return covariance
