"""What features know: a ridge classifier on frozen features, as MRMBench probes reward models (arXiv 2511.12464)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

__all__ = ["probe_right", "ridge"]


def ridge(features: Float[ndarray, "B D"], targets: Float[ndarray, "B K"], penalty: float) -> Float[ndarray, "D+1 K"]:
    """The weights (the last row is the intercept, which is not penalised) of least squares + penalty ‖w‖²."""
    mean, centre = features.mean(0), targets.mean(0)
    x, y = features - mean, targets - centre
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return np.vstack([weights, centre - mean @ weights])


def probe_right(
    features: Float[ndarray, "B D"], labels: Int[ndarray, " B"], folds: int = 5, penalty: float = 1.0, seed: int = 0
) -> Float[ndarray, " B"]:
    """1 where a ridge classifier that was fitted on the other folds names the row's class, else 0.

    Features are standardised by the rows fitted on; targets are 1 for the class and -1 for the others.

    Raises:
        ValueError: fewer rows than folds, or one class.
    """
    x, classes = np.asarray(features, float), np.unique(labels)
    if len(x) < folds or len(classes) < 2:
        raise ValueError(f"a probe needs {folds} rows and two classes, not {len(x)} rows of {len(classes)}")
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    right = np.zeros(len(x))
    for part in range(folds):
        fit, held = fold != part, fold == part
        mean, std = x[fit].mean(0), x[fit].std(0)
        scaled = (x - mean) / np.where(std > 0, std, 1)
        targets = np.where(labels[fit, None] == classes, 1.0, -1.0)
        weights = ridge(scaled[fit], targets, penalty)
        guess = classes[(scaled[held] @ weights[:-1] + weights[-1]).argmax(1)]
        right[held] = guess == labels[held]
    return right
