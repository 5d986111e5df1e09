"""Reward against KL: best of N, and the tilted policies that no other can beat. Pure functions of samples' rewards.

"Asymptotics of Language Model Alignment" (Yang et al. 2024, arXiv 2404.01730): the best policy at a KL from p is
p(y) exp(r(y)/β) / Z, and best of N comes close to it. Everything here is estimated from rewards (B, N) of N samples of
p for each of B prompts; the KLs are means over prompts, in nats. With `measured` (B, N) samples are chosen or weighed
by their rewards, and what is reported of them is another measure, such as the truth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

__all__ = ["Point", "best_of_n_curve", "best_of_n_kl", "reward_at_kl", "tilted"]


class Point(NamedTuple):
    """A policy: its KL from the start in nats, its mean reward, and what makes it (N, or β)."""

    kl: float
    reward: float
    by: float


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1)/n: the KL of best of n from its base where no two rewards are equal, else an upper bound.

    Source: Stiennon et al. 2020; a bound by Beirami et al. 2024 (arXiv 2401.01879).
    """
    return math.log(n) - (n - 1) / n


def best_of_n_curve(rewards: Float[ndarray, "B N"], measured: Float[ndarray, "B N"] | None = None) -> list[Point]:
    """Best of n for n = 1, 2, 4, … N, without bias: the mean over all subsets of n of the N samples.

    The k-th smallest of N is the largest of n draws without replacement in C(k - 1, n - 1) of C(N, n) subsets; samples
    of equal reward share what they measure.
    """
    values = np.asarray(rewards, float)
    ordered = np.sort(values, axis=1) if measured is None else _by_reward(values, np.asarray(measured, float))
    count = ordered.shape[1]
    sizes = [2**i for i in range(int(math.log2(count)) + 1)]
    sizes += [count] * (sizes[-1] != count)
    points = []
    for n in sizes:
        weights = np.array([math.comb(k, n - 1) / math.comb(count, n) for k in range(count)])
        points.append(Point(best_of_n_kl(n), float((ordered @ weights).mean()), float(n)))
    return points


def _by_reward(rewards: Float[ndarray, "B N"], measured: Float[ndarray, "B N"]) -> Float[ndarray, "B N"]:
    """What is measured, in the order of the rewards; the mean among equal ones."""
    ordered = np.empty_like(measured)
    for row, (reward, own) in enumerate(zip(rewards, measured, strict=True)):
        _, place, sizes = np.unique(reward, return_inverse=True, return_counts=True)
        ordered[row] = np.repeat(np.bincount(place, own) / sizes, sizes)
    return ordered


def tilted(rewards: Float[ndarray, "B N"], beta: float, measured: Float[ndarray, "B N"] | None = None) -> Point:
    """The policy p exp(r/β)/Z by self-normalised weights of the N samples: its KL and its mean reward.

    KL = E_w[r]/β - log mean exp(r/β). With few samples it is held below log N: read no further than about half of that.
    """
    values = np.asarray(rewards, float)
    peak = values.max(1, keepdims=True)
    scaled = np.exp((values - peak) / beta)
    total = scaled.sum(1)
    mean = (scaled * values).sum(1) / total
    log_z = np.log(scaled.mean(1)) + peak[:, 0] / beta
    scored = mean if measured is None else (scaled * np.asarray(measured, float)).sum(1) / total
    return Point(float((mean / beta - log_z).mean()), float(scored.mean()), beta)


def reward_at_kl(rewards: Float[ndarray, "B N"], kl: float, measured: Float[ndarray, "B N"] | None = None) -> Point:
    """The tilted policy of that KL, its β found by bisection between 1e-6 and 1e6."""
    low, high = 1e-6, 1e6  # β: the KL falls with it
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if tilted(rewards, middle).kl > kl else (low, middle)
    return tilted(rewards, math.sqrt(low * high), measured)
