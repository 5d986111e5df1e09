"""Features of outputs that were made anywhere, by an encoder, a reward model or a language model, and how they lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.protocols import FeaturePolicy
from mmalign.core.types import Modality, Rollout, equal_numbers
from mmalign.evaluation import geometry
from mmalign.evaluation.bootstrap import Interval, mean_interval
from mmalign.evaluation.probes import Probe, probe_right
from mmalign.run.rows import Row
from mmalign.run.score import common_modality, read_rollouts

__all__ = ["FeatureReader", "changed", "feature_measures", "feature_reader", "features_of"]

Measure = dict[str, Any]


class FeatureReader:
    """What makes features of outputs: `modalities`, and a call of a rollout."""

    def __init__(self, modalities: frozenset[Modality], read: Callable[[Rollout], torch.Tensor]) -> None:
        self.modalities, self.read = modalities, read

    def __call__(self, rollout: Rollout) -> Float[ndarray, "B D"]:
        """One row per output; NaN for one without features."""
        with torch.no_grad():
            return self.read(rollout).float().cpu().numpy()


def feature_reader(name: str, options: Mapping[str, Any], allow: Collection[str] = ()) -> FeatureReader:
    """The encoder called `name`, or the adapter (`reward_model`, `causal_lm`, …) with the features of its policy.

    An encoder sees the outputs alone, an adapter reads each behind its prompt.

    Raises:
        ConfigError: a name of neither, or wrong options.
        CapabilityError: an adapter without features.
    """
    from mmalign.rewards.encoders import encoders, make_encoder

    if name in encoders.names():
        encoder = make_encoder({"name": name, **options}, allow)
        return FeatureReader(encoder.modalities, encoder.embed)
    from mmalign.adapters import adapters
    from mmalign.run.registries import REGISTRIES

    if name not in adapters.names() and ":" not in name:
        known = ", ".join([*encoders.names(), *_featured(adapters)])
        raise ConfigError(f"--with {name}: is no encoder and no adapter; choose from {known}.")
    kind = adapters.get(name, allow)
    policy = "scorer" if hasattr(kind, "score") else "tokens" if hasattr(kind, "begin") else ""
    if not policy or (policy == "scorer" and not hasattr(kind, "scored_features")):
        raise CapabilityError(
            f"--with {name}: this adapter has no features; choose from {', '.join(_featured(adapters))}."
        )
    frozen = {"name": name, "train": "frozen", **options}
    made: Any = REGISTRIES["policies"].build({"name": policy}, "policy", adapter=adapters.build(frozen, "with", allow))
    made.adapter.load()
    reads: FeaturePolicy = made
    return FeatureReader(
        frozenset({made.modality}), lambda rollout: reads.features(reads.observe(rollout.prompts, rollout.output))
    )


def _featured(adapters: Any) -> list[str]:
    return [
        name
        for name in adapters.names()
        if any(hasattr(adapters.get(name), one) for one in ("scored_features", "begin"))
    ]


def features_of(
    rows: Sequence[Row],
    reader: FeatureReader,
    folder: Path,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[ndarray, "N D"], list[int]]:
    """The features of every row that has some, and the numbers of these rows.

    Raises:
        DataError: no row has any.
        CapabilityError: outputs of another kind than it reads.
    """
    kind = common_modality(rows, reader, "this embeds")
    by_row: dict[int, Float[ndarray, " D"]] = {}
    unread: dict[int, str] = {}
    for start in range(0, len(rows), batch):
        taken = list(range(start, min(start + batch, len(rows))))
        for same, rollout in read_rollouts(rows, taken, kind, folder, unread):
            by_row |= {i: row for i, row in zip(same, reader(rollout), strict=True) if np.isfinite(row).all()}
        if progress is not None:
            progress(taken[-1] + 1, len(rows))
    if not by_row:
        raise DataError(
            f"no output of {len(rows)} has features: {next(iter(unread.values()), 'none could be embedded')}"
        )
    kept = sorted(by_row)
    return np.stack([by_row[i] for i in kept]), kept


def feature_measures(
    features: Float[ndarray, "N D"],
    rows: Sequence[Row],
    alike: str = "",
    probes: Sequence[str] = (),
    ranks: Sequence[int] = (1, 5, 10),
    probe: Probe = "logistic",
) -> Measure:
    """How these features lie: spread, and by columns of `meta` neighbours and what a linear probe can tell.

    `uniformity`, `effective_rank` and `tolerance` are numbers; `recall@k`, `mrr` and `probe <column>` have intervals.

    Args:
        features: of `rows`.
        rows: their prompts' columns are read.
        alike: rows with the same value belong together: each is looked for among all others.
        probes: columns that a probe tells in folds it was not fitted on; rows of one group are in one fold.
        ranks: the k of recall@k.
        probe: `logistic` or `ridge`.

    Raises:
        DataError: a column that a row lacks, or of one value.
    """
    made: Measure = {
        "uniformity": {"value": geometry.uniformity(features), "n": len(features)},
        "effective_rank": {"value": geometry.effective_rank(features), "n": len(features)},
    }
    if alike:
        labels = _column(rows, alike)
        right = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
        others: Bool[ndarray, "N N"] = ~np.eye(len(labels), dtype=bool)
        if not right.any():
            raise DataError(f"--alike {alike}: no two rows share a value, so that none belong together.")
        made["tolerance"] = {"value": geometry.class_tolerance(features, labels), "n": len(features)}
        first = geometry.first_ranks(features, features, right, others)
        known = ~np.isnan(first)
        for k in ranks:
            made[f"recall@{k}"] = _with_interval((first[known] <= k).astype(float))
        made["mrr"] = _with_interval(geometry.reciprocal_ranks(features, features, right, others)[known])
    groups = equal_numbers(row.group for row in rows).numpy()
    for column in probes:
        values = _column(rows, column)
        names, labels = np.unique(values, return_inverse=True)
        if len(names) < 2:
            raise DataError(f"--probe {column}: all rows have the value {names[0]}; a probe needs two.")
        correct = probe_right(features, labels, kind=probe, group=groups)
        made[f"probe {column}"] = {
            **_with_interval(correct),
            "majority": float(np.bincount(labels).max() / len(labels)),
        }
    return made


def changed(
    features: Float[ndarray, "N D"],
    background: Float[ndarray, "M D"],
    rows: Sequence[Row],
    alpha: float = 1.0,
    shown: int = 3,
) -> Measure:
    """The direction in which the rows vary and the background does not (contrastive PCA), and rows at its ends."""
    direction = geometry.contrastive_pca(features, background, alpha)
    along, behind = features @ direction.vectors[:, 0], background @ direction.vectors[:, 0]
    order = np.argsort(along)
    return {
        "value": float(direction.values[0]),
        "auroc": geometry.separation(along, behind),
        "n": len(features),
        "low": [rows[i].output for i in order[:shown]],
        "high": [rows[i].output for i in order[::-1][:shown]],
    }


def _column(rows: Sequence[Row], column: str) -> ndarray:
    missing = [row.place for row in rows if row.prompt.meta.get(column) is None]
    if missing:
        known = sorted({name for row in rows for name in row.prompt.meta})
        raise DataError(
            f"{missing[0]}: 'meta' has no '{column}' ({len(missing)} of {len(rows)} rows); its columns: "
            f"{', '.join(known) or 'none'}."
        )
    return np.array([str(row.prompt.meta[column]) for row in rows])


def _with_interval(values: Float[ndarray, " N"]) -> Measure:
    interval: Interval = mean_interval(values)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
