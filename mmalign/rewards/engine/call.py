"""The engine around every reward call: batches, failed rows, time limits, the cache, the breaker, the books."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.cuts import counting_cuts
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.protocols import Gather, Reward, one_alone
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Modality, Rollout, Scores, Status
from mmalign.rewards.engine.cache import ScoreCache, identity, row_keys
from mmalign.rewards.engine.contract import bisect_failures, enforce_contract, merge, merge_at
from mmalign.rewards.engine.foreign_code import foreign_call
from mmalign.rewards.engine.loading import prepare
from mmalign.rewards.engine.metrics import FailureLimit, MetricAccumulator
from mmalign.rewards.engine.process import RowProcess
from mmalign.rewards.engine.rows import device_of, modality_of
from mmalign.rewards.engine.sets import Credit, Embedded, is_set, scoring_a_set
from mmalign.rewards.engine.shield import Shield

_DEFAULT_TIMEOUT = 60.0


@dataclass
class Guarded:
    """One named reward of a run. Itself a `Reward`, whose scores always hold the contract.

    Args:
        name: how logs and messages call it.
        reward: a `Reward`, or a `SetReward`, which scores rows by their credit over the whole batch.
        weight: in the combination.
        monitor: only logged: no part of the value, and its failures never stop the run.
        rows: rows per call (0: all). Groups stay whole, so a call may exceed it by one group.
        timeout: seconds per row, for rewards that declare `isolated = True`; they run in their own process.
        cache: where scores of rows seen before are looked up; only rewards that declare `deterministic = True`.
        failed_share: share of failed rows, over the last 256, above which a ScoreError ends the run; 1: never.
    """

    name: str
    reward: Any
    weight: float = 1.0
    monitor: bool = False
    rows: int = 0
    timeout: float | None = None
    cache: ScoreCache | None = None
    failed_share: float = 0.5
    _metrics: MetricAccumulator = field(default_factory=MetricAccumulator, init=False, repr=False)
    _ready: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if is_set(self.reward):
            self.reward = Credit(self.reward, rows=self.rows, name=self.name)  # a set's itself, as a run file names it
        alone = getattr(self.reward, "isolated", False)
        if self.timeout is not None and not alone:
            raise ConfigError(
                f"rewards.{self.name}.timeout: only rewards that declare `isolated = True` can be held to a time limit."
            )
        self._process = RowProcess(self.reward, self.name, self.timeout or _DEFAULT_TIMEOUT) if alone else None
        self._failures = FailureLimit(self.name, 1.0 if self.monitor else self.failed_share)

    def __getattr__(self, name: str) -> Any:
        # A slot made of a set reward is also one: objectives that re-score sets find these, others must not.
        judge = self.__dict__.get("reward")
        if name in ("embed", "score", "credit", "swap_scores") and isinstance(judge, Credit):
            return self._embed if name == "embed" else self._on_sets(getattr(judge.reward, name))
        raise AttributeError(f"{type(self).__name__} '{self.__dict__.get('name')}' has no attribute '{name}'")

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs it can judge."""
        return self.reward.modalities  # type: ignore[no-any-return]

    @property
    def range(self) -> tuple[float, float]:
        """The reward's declared range."""
        return self.reward.range  # type: ignore[no-any-return]

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches `rollout.output`."""
        return self.reward.differentiable  # type: ignore[no-any-return]

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows.

        Raises:
            ScoreError: the reward breaks its contract, or failed on too many rows.
            CapabilityError: it cannot judge this modality.
            MmalignError: what it needs cannot be loaded; see `prepare`.
        """
        _require_modality(self.name, self.modalities, rollout.output)
        self.prepare()
        start = time.perf_counter()
        with foreign_call(self.name, len(rollout)), counting_cuts() as cuts:
            scores, hits = self._scored(rollout)
        self._metrics.add(scores, time.perf_counter() - start, hits, len(cuts))
        self._failures.watch(scores)
        return scores

    def prepare(self) -> None:
        """Load what the reward needs, in its own process if it has one, or raise what the first call would."""
        if not self._ready:
            if self._process is not None:
                self._process.prepare()
            else:
                prepare(self.reward, f"reward '{self.name}'")
            self._ready = True

    def metrics(self) -> dict[str, Tensor]:
        """Values, status shares and seconds since the last call of `metrics`, see `MetricAccumulator.compute`."""
        return self.shared_metrics(one_alone)

    def shared_metrics(self, gather: Gather) -> dict[str, Tensor]:
        """The same of the rows of every process; all call it."""
        return MetricAccumulator.joined(gather(self._metrics.pop())).compute()

    def told(self) -> str:
        """What the latest rows came to: statuses, reasons, values."""
        return self._failures.told()

    def close(self) -> None:
        """End the reward's own process, if it has one."""
        if self._process is not None:
            self._process.close()

    def _embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Embeddings of B rows for who scores sets of them; rows that have none are NaN, counted as failed ones."""
        self.prepare()
        start = time.perf_counter()
        with foreign_call(self.name, len(rollout)), counting_cuts() as cuts:
            shield = Shield(rollout)
            found: Embedded = self.reward.embedded(shield.shown)
            shield.check(self.name)
        rows = found.required(self.name)
        states = [Status.OK if good else Status.ERROR for good in rows.detach().isfinite().all(1).tolist()]
        told = [found.why.get(row, "the embedding is not finite") for row in range(len(rows))]
        self._metrics.count(states, time.perf_counter() - start, len(cuts))
        self._failures.watch(
            Scores(torch.full((len(rows),), float("nan")), torch.tensor(states, dtype=torch.int8), info=told)
        )
        return rows

    def _on_sets(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """What the set reward makes of embeddings; a failure is a ScoreError with its name."""

        def call(embedding: Tensor, *more: Any) -> Any:
            with scoring_a_set(self.name, len(embedding)):
                return method(embedding, *more)

        return call

    def _scored(self, rollout: Rollout) -> tuple[Scores, int]:
        who = identity(self.reward) if self.cache is not None and not _carries_gradient(rollout.output) else None
        if self.cache is None or who is None or getattr(self.reward, "whole", False):
            return self._fresh(rollout), 0
        keys = row_keys(who, rollout)
        found = self.cache.read(keys)
        missing = torch.tensor([i for i, key in enumerate(keys) if key not in found], dtype=torch.long)
        pieces = [(torch.tensor([i]), found[key]) for i, key in enumerate(keys) if key in found]
        if len(missing):
            fresh = self._fresh(rollout[missing])
            self.cache.write([keys[i] for i in missing.tolist()], fresh)
            pieces.append((missing, fresh))
        return merge_at(pieces, len(rollout), device_of(rollout.output)), len(keys) - len(missing)

    def _fresh(self, rollout: Rollout) -> Scores:
        if getattr(self.reward, "whole", False):
            return bisect_failures(self._checked, rollout, split=False)[0]
        pieces = [
            scores for part in _whole_groups(rollout, self.rows) for scores in bisect_failures(self._checked, part)
        ]
        return merge(pieces, device_of(rollout.output))

    def _checked(self, rollout: Rollout) -> Scores:
        score: Reward = self._process or self.reward  # type: ignore[assignment]
        shield = Shield(rollout)
        scores = score(shield.shown)
        shield.check(self.name)
        return enforce_contract(scores, len(rollout), self.range, self.name)


def _whole_groups(rollout: Rollout, rows: int) -> list[Rollout]:
    """Consecutive parts of about `rows` rows whose cuts fall between groups."""
    if not rows or len(rollout) <= rows:
        return [rollout]
    group = rollout.group.tolist()
    borders = [i for i in range(1, len(group)) if group[i] != group[i - 1]]
    cuts = [0]
    for border, following in zip(borders, [*borders[1:], len(group)], strict=True):
        if following - cuts[-1] > rows:
            cuts.append(border)
    return [rollout[i:j] for i, j in zip(cuts, [*cuts[1:], len(group)], strict=True)]


def _require_modality(name: str, modalities: frozenset[Modality], output: Any) -> None:
    found = modality_of(output)
    if found not in modalities:
        raise CapabilityError(f"reward '{name}' judges {', '.join(sorted(modalities))}; these outputs are {found}.")


def _carries_gradient(output: Any) -> bool:
    tensor = output.samples if isinstance(output, Audio) else output
    return isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled()
