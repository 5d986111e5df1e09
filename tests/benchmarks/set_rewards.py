"""What a set reward costs: the Fréchet distance against scipy's matrix root, credit against leaving out every row.

Rows of 512 features with a power-law spectrum, as CLAP's; a reference of 4,000. Both sides of a ratio run in turn in
this process, so load on the machine touches them alike; medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mmalign.rewards import functional as F

FEATURES, REFERENCE = 512, 4000


def measure(repeats: int = 5) -> dict[str, Any]:
    """Seconds of each form and how many times faster ours is, with how far the values agree."""
    reference = F.gaussian(_rows(REFERENCE, 0))
    return {"distance_n64_d512": _distance(reference, repeats), "credit_n256_d512": _credit(reference, repeats)}


def _distance(reference: F.Gaussian, repeats: int) -> dict[str, Any]:
    x = _rows(64, 1, shift=0.01)
    cov = reference.cov.numpy()
    subset = torch.arange(64)[None]
    forms: dict[str, Callable[[], float]] = {
        "scipy_sqrtm": lambda: _sqrtm(x.numpy(), reference.mean.numpy(), cov),
        "svd": lambda: float(F.frechet_distance(x, reference)),
        "gram": lambda: float(F.frechet_of_subsets(x, subset, reference)[0]),
    }
    seconds, values = _timed(forms, repeats)
    return {
        "seconds": {name: round(taken, 5) for name, taken in seconds.items()},
        "times_faster": {name: round(seconds["scipy_sqrtm"] / seconds[name], 1) for name in ("svd", "gram")},
        "apart": {name: abs(values[name] - values["scipy_sqrtm"]) for name in ("svd", "gram")},
    }


def _credit(reference: F.Gaussian, repeats: int) -> dict[str, Any]:
    """Brute force by our own distance is run whole; by scipy's root on 8 of the 256 rows and multiplied."""
    n, tried = 256, 8
    x = _rows(n, 2, shift=0.01)
    cov = reference.cov.numpy()

    def left_out(row: int) -> torch.Tensor:
        return torch.cat([x[:row], x[row + 1 :]])

    start = time.perf_counter()
    exact = torch.stack([F.frechet_distance(left_out(row), reference) for row in range(n)])
    brute = time.perf_counter() - start
    start = time.perf_counter()
    for row in range(tried):
        _sqrtm(left_out(row).numpy(), reference.mean.numpy(), cov)
    scipy_brute = (time.perf_counter() - start) * n / tried
    seconds, _ = _timed({"closed_form": lambda: float(F.frechet_credit(x, reference)[0])}, repeats)
    ours = F.frechet_credit(x, reference)
    return {
        "seconds": {
            "closed_form": round(seconds["closed_form"], 4),
            "brute_force_by_our_distance": round(brute, 3),
            "brute_force_by_scipy_sqrtm": round(scipy_brute, 1),
        },
        "times_faster": {
            "than_brute_force_by_our_distance": round(brute / seconds["closed_form"], 1),
            "than_brute_force_by_scipy_sqrtm": round(scipy_brute / seconds["closed_form"], 1),
        },
        "correlation_with_leave_one_out": round(float(torch.corrcoef(torch.stack([ours, exact]))[0, 1]), 4),
    }


def _sqrtm(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    """The distance as frechet-audio-distance and pytorch-fid write it."""
    from scipy.linalg import sqrtm

    own = np.cov(x, rowvar=False)
    root = sqrtm(own @ cov)
    return float(((x.mean(0) - mean) ** 2).sum() + np.trace(own) + np.trace(cov) - 2 * np.trace(root).real)


def _timed(forms: dict[str, Callable[[], float]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    taken: dict[str, list[float]] = {name: [] for name in forms}
    values = {name: form() for name, form in forms.items()}  # also warms up
    for _ in range(repeats):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in taken.items()}, values


def _rows(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, FEATURES + 1, dtype=torch.float64) ** -0.5
    return torch.randn(count, FEATURES, generator=rng, dtype=torch.float64) * spectrum + shift
