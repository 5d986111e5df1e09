"""By which dimension a reward model judges a pair: the nearest centroid of difference features (MRMBench)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.types import Prompt, Rollout, modality_of
from mmalign.evaluation.bootstrap import mean_interval
from mmalign.evaluation.probes import centroids, distances
from mmalign.run.features import FeatureReader

__all__ = ["holds_comparisons", "judged_by"]

_LONGEST = 1 << 22  # characters of a first row


def holds_comparisons(file: Path) -> bool:
    """Has the first row of a file of JSON lines `chosen` and `rejected`?"""
    if file.suffix.lower() != ".jsonl" or not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline(_LONGEST)
    try:
        row = json.loads(first)
    except ValueError:
        return False  # which the reader of rows says with its place
    return isinstance(row, dict) and {"chosen", "rejected"} <= set(row)


def judged_by(rows: Sequence[Prompt], reader: FeatureReader, column: str, batch: int = 64) -> dict[str, Any]:
    """How often pairs whose dimension is known are told it by the others, and what the other pairs are judged by.

    Probing at inference (2511.12464, a reconstruction from its abstract): of each dimension the pairs' differences, the
    features of `chosen` minus those of the first `rejected`, have a centroid, and a pair is judged by the nearest. The
    centroid that a known pair is held against is of the other pairs (leave one out), so that a dimension of one pair
    is never right.

    Args:
        rows: comparisons, as `read_comparisons` makes them.
        reader: of features.
        column: of rows that know their dimension; the others are named.
        batch: outputs at once.

    Returns:
        "value", "low", "high", "n": of the pairs that know their dimension, the share whose nearest centroid has its
        name; "majority": the largest dimension's share of them; "named": of each other pair its `place`, the nearest
        `dimension` and `lead`, by how much farther the second is, in units of the distance to the nearest.

    Raises:
        DataError: fewer than two dimensions, a row whose dimension is no text, or without a rejected output.
        CapabilityError: outputs of another kind than it reads.
    """
    for row in rows:
        if not row.meta["rejected"]:
            raise DataError(f"{row.place}: has no rejected output, so that no pair can be read.")
        if not isinstance(row.meta.get(column, ""), str | int | None):
            raise DataError(f"{row.place}: '{column}' is {row.meta[column]!r}; expected the name of a dimension.")
    known = np.array([row.meta.get(column) not in (None, "") for row in rows])
    names = np.array([str(row.meta[column]) for row, labelled in zip(rows, known, strict=True) if labelled])
    if len(set(names)) < 2:
        raise DataError(f"--probe {column}: {len(set(names))} dimensions in {len(rows)} pairs; two are needed.")
    chosen, rejected = (_features(rows, reader, side, batch) for side in ("chosen", "rejected"))
    differences = chosen - rejected
    labelled, unlabelled = differences[known], differences[~known]
    dimensions, centres = centroids(labelled, names)
    right = _left_out(labelled, names) == names
    interval = mean_interval(right.astype(float))
    apart = np.sort(gap := distances(unlabelled, centres), axis=1)
    lead = apart[:, 1] / np.where(apart[:, 0] > 0, apart[:, 0], 1) - 1
    places = [row.place for row, one in zip(rows, known, strict=True) if not one]
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "majority": float(max(np.mean(names == name) for name in dimensions)),
        "named": [
            {"place": place, "dimension": str(dimensions[at]), "lead": round(float(by), 6)}
            for place, at, by in zip(places, gap.argmin(1), lead, strict=True)
        ],
    }


def _left_out(differences: Float[ndarray, "N D"], names: ndarray) -> ndarray:
    """The name of the centroid that is nearest to each pair where the pair itself is in none of them."""
    dimensions, centres = centroids(differences, names)
    gap = distances(differences, centres)
    for at, name in enumerate(dimensions):
        own = np.flatnonzero(names == name)
        # Without one of n rows the mean moves so that the row is n / (n - 1) times as far from it.
        gap[own, at] = gap[own, at] * len(own) / (len(own) - 1) if len(own) > 1 else np.inf
    nearest: ndarray = dimensions[gap.argmin(1)]
    return nearest


def _features(rows: Sequence[Prompt], reader: FeatureReader, side: str, batch: int) -> Float[ndarray, "N D"]:
    parts = []
    for start in range(0, len(rows), batch):
        part = list(rows[start : start + batch])
        outputs = [row.meta[side][0] for row in part]
        texts = all(isinstance(output, str) for output in outputs)
        calls = [Rollout.of(part, outputs)] if texts else [_one(*pair) for pair in zip(part, outputs, strict=True)]
        kinds = {modality_of(call.output) for call in calls}
        if not kinds <= reader.modalities:
            reads = " and ".join(sorted(reader.modalities))
            raise CapabilityError(f"this embeds {reads}; the outputs are {' and '.join(sorted(kinds))}.")
        parts += [reader(call) for call in calls]
    features = np.concatenate(parts)
    if (bad := ~np.isfinite(features).all(1)).any():
        place = rows[int(bad.argmax())].place
        raise DataError(f"{place}: '{side}' has no features ({bad.sum()} of {len(rows)} rows).")
    return features


def _one(prompt: Prompt, output: Any) -> Rollout:
    return Rollout.of([prompt], output[None] if isinstance(output, torch.Tensor) else output)
