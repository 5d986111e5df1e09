"""What features know: linear probes on frozen features, as MRMBench probes reward models (arXiv 2511.12464).

A probe is a classifier that is fitted on some rows and asked about the others. MRMBench fits a logistic one by
gradient; here it is the same model at its optimum. Ridge regression on targets of ±1 has a closed form and is quicker.

At inference MRMBench asks by which dimension a pair is judged: of each dimension the pairs' difference features have a
centroid, and a new pair belongs to the nearest (`centroids`, `distances`; a reconstruction from the abstract).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

__all__ = ["Probe", "centroids", "distances", "logistic", "probe_right", "ridge"]

Probe = Literal["ridge", "logistic"]


def ridge(features: Float[ndarray, "B D"], targets: Float[ndarray, "B K"], penalty: float) -> Float[ndarray, "D+1 K"]:
    """The weights (the last row is the intercept, which is not penalised) of least squares + penalty ‖w‖²."""
    mean, centre = features.mean(0), targets.mean(0)
    x, y = features - mean, targets - centre
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return np.vstack([weights, centre - mean @ weights])


def logistic(
    features: Float[ndarray, "B D"], targets: Float[ndarray, "B K"], penalty: float
) -> Float[ndarray, "D+1 K"]:
    """The weights (the last row is the intercept) that maximise the softmax log-likelihood - penalty ‖w‖² / 2.

    `targets` are the probabilities of the K classes; the intercept is not penalised.
    """
    from scipy.optimize import minimize

    inputs, shape = np.hstack([features, np.ones((len(features), 1))]), (features.shape[1] + 1, targets.shape[1])

    def loss(flat: Float[ndarray, " P"]) -> tuple[float, Float[ndarray, " P"]]:
        weights = flat.reshape(shape)
        logits = inputs @ weights
        logits = logits - logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        shrunk = np.vstack([weights[:-1], np.zeros((1, shape[1]))])
        value = -(targets * log_p).sum() + penalty / 2 * (shrunk**2).sum()
        return float(value), (inputs.T @ (np.exp(log_p) - targets) + penalty * shrunk).ravel()

    optimum = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights: Float[ndarray, "D+1 K"] = optimum.x.reshape(shape)
    return weights


def probe_right(
    features: Float[ndarray, "B D"],
    labels: Int[ndarray, " B"],
    folds: int = 5,
    penalty: float = 1.0,
    seed: int = 0,
    kind: Probe = "ridge",
    group: Shaped[ndarray, " B"] | None = None,
) -> Float[ndarray, " B"]:
    """1 where a classifier that was fitted on the other folds names the row's class, else 0.

    Features are standardised by the rows fitted on; ridge's targets are 1 for the class and -1 for the others. Rows of
    one `group` (two answers to one prompt) are in one fold, so that none is asked about what its twin told.

    Raises:
        ValueError: fewer rows than folds, or one class.
    """
    x, classes = np.asarray(features, float), np.unique(labels)
    if len(x) < folds or len(classes) < 2:
        raise ValueError(f"a probe needs {folds} rows and two classes, not {len(x)} rows of {len(classes)}")
    _, member = np.unique(np.arange(len(x)) if group is None else group, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(member.max() + 1) % folds)[member]
    right = np.zeros(len(x))
    for part in range(folds):
        fit, held = fold != part, fold == part
        mean, std = x[fit].mean(0), x[fit].std(0)
        scaled = (x - mean) / np.where(std > 0, std, 1)
        named = labels[fit, None] == classes
        if kind == "ridge":
            weights = ridge(scaled[fit], np.where(named, 1.0, -1.0), penalty)
        else:
            weights = logistic(scaled[fit], named.astype(float), penalty)
        guess = classes[(scaled[held] @ weights[:-1] + weights[-1]).argmax(1)]
        right[held] = guess == labels[held]
    return right


def centroids(
    differences: Float[ndarray, "B D"], dimension: Shaped[ndarray, " B"]
) -> tuple[Shaped[ndarray, " K"], Float[ndarray, "K D"]]:
    """The dimensions that occur, sorted, and of each the mean of its pairs' features (chosen minus rejected)."""
    names, member = np.unique(dimension, return_inverse=True)
    return names, np.stack([differences[member == at].mean(0) for at in range(len(names))])


def distances(differences: Float[ndarray, "B D"], centres: Float[ndarray, "K D"]) -> Float[ndarray, "B K"]:
    """How far each pair lies from each centroid; the nearest is what it is judged by."""
    gap: Float[ndarray, "B K"] = np.linalg.norm(differences[:, None] - centres[None], axis=2)
    return gap
