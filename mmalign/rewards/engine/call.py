"""What surrounds a reward's calls: batches, failed rows, time limits, the cache, metrics and the limit of failures; and
a shield, for what a reward is shown of a rollout is not its to change: training goes on with that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.asked import counting_requests
from mmalign.core.cuts import counting_cuts
from mmalign.core.errors import CapabilityError, ConfigError, MmalignError, ScoreError
from mmalign.core.protocols import Gather, Reward, SetReward, one_alone
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores, Status, device_of, modality_of
from mmalign.rewards.engine.cache import ScoreCache, identity, row_keys
from mmalign.rewards.engine.contract import OF_A_ROW, bisect_failures, enforce_contract, merge, merge_at
from mmalign.rewards.engine.foreign_code import RowProcess, foreign_call, prepare
from mmalign.rewards.engine.mapped import mapped, mapped_range
from mmalign.rewards.engine.metrics import FailureLimit, MetricAccumulator
from mmalign.rewards.engine.sets import Credit, Embedded, scores_only_sets, scoring_a_set
from mmalign.rewards.engine.traits import RewardTraits, check_traits

_DEFAULT_TIMEOUT = 60.0
_SAMPLED = 2**16  # entries of a latent that are looked at: a trajectory is as large as all pictures of its steps
_PLAIN = (str, int, float, type(None))


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
        map: (low, high): values are put on [0, 1], see `engine.mapped`.
    """

    name: str
    reward: Any  # no protocol: looking for its members would read its range, which may be in a model's weights
    weight: float = 1.0
    monitor: bool = False
    rows: int = 0
    timeout: float | None = None
    cache: ScoreCache | None = None
    failed_share: float = 0.5
    map: tuple[float, float] | None = None
    _metrics: MetricAccumulator = field(default_factory=MetricAccumulator, init=False, repr=False)
    _ready: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if scores_only_sets(self.reward):
            self.reward = Credit(self.reward, rows=self.rows, name=self.name)  # a set's itself, as a run file names it
        check_traits(type(self.reward), f"reward '{self.name}'")
        isolated = self.traits.isolated
        if self.timeout is not None and not isolated:
            raise ConfigError(
                f"rewards.{self.name}.timeout: only rewards that declare `isolated = True` can be held to a time limit."
            )
        self._process = RowProcess(self.reward, self.name, self.timeout or _DEFAULT_TIMEOUT) if isolated else None
        self._failures = FailureLimit(self.name, 1.0 if self.monitor else self.failed_share)

    @cached_property
    def traits(self) -> RewardTraits:
        """What the reward says of itself, read once."""
        return RewardTraits.of(self.reward)

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs it can judge."""
        return self.reward.modalities

    @property
    def range(self) -> tuple[float, float]:
        """The reward's declared range, mapped."""
        return self.reward.range if self.map is None else mapped_range(self.reward.range, self.map)

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches `rollout.output`."""
        return self.reward.differentiable

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
        with foreign_call(self.name, len(rollout)), counting_cuts() as cuts, counting_requests() as requests:
            scores, hits = self._scored(rollout)
            scores = scores if self.map is None else mapped(scores, self.map)
        self._metrics.add_requests(requests)
        self._record(scores, time.perf_counter() - start, hits, len(cuts))
        return scores

    def prepare(self) -> None:
        """Load what the reward needs, in its own process if it has one, or raise what the first call would."""
        if not self._ready:
            if self._process is not None:
                self._process.prepare()
            else:
                prepare(self.reward, f"reward '{self.name}'")
            self._ready = True

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Inside it, calls are no part of the metrics."""
        counted, self._metrics = self._metrics, MetricAccumulator()
        try:
            yield
        finally:
            self._metrics = counted

    def metrics(self) -> dict[str, Tensor]:
        """Values, status shares and seconds since the last call of `metrics`, see `MetricAccumulator.compute`."""
        return self.shared_metrics(one_alone)

    def shared_metrics(self, gather: Gather) -> dict[str, Tensor]:
        """The same of the rows of every process; all call it."""
        return MetricAccumulator.joined(gather(self._metrics.pop())).compute()

    def summary(self) -> str:
        """What the latest rows came to: statuses, reasons, values."""
        return self._failures.summary()

    def close(self) -> None:
        """End the reward's own process, if it has one."""
        if self._process is not None:
            self._process.close()

    def _record(self, scores: Scores, seconds: float, hits: int = 0, cuts: int = 0) -> None:
        """Add a call to the metrics and to the failures; raises ScoreError where too many rows failed."""
        self._metrics.add(scores, seconds, hits, cuts)
        self._failures.watch(scores)

    def _scored(self, rollout: Rollout) -> tuple[Scores, int]:
        """The scores of B rows, and how many of them came from the cache."""
        who = identity(self.reward) if self.cache is not None and not _carries_gradient(rollout.output) else None
        if self.cache is None or who is None or self.traits.batch_dependent:
            return self._fresh(rollout), 0
        keys = row_keys(who, rollout)
        cached = self.cache.read(keys)
        missing = torch.tensor([i for i, key in enumerate(keys) if key not in cached], dtype=torch.long)
        pieces = [(torch.tensor([i]), cached[key]) for i, key in enumerate(keys) if key in cached]
        if len(missing):
            fresh = self._fresh(rollout[missing])
            self.cache.write([keys[i] for i in missing.tolist()], fresh)
            pieces.append((missing, fresh))
        return merge_at(pieces, len(rollout), device_of(rollout.output)), len(keys) - len(missing)

    def _fresh(self, rollout: Rollout) -> Scores:
        if self.traits.batch_dependent:
            return bisect_failures(self._checked, rollout, split=False)[0]
        parts = _whole_groups(rollout, self.rows)
        pieces = [scores for part in parts for scores in bisect_failures(self._checked, part)]
        return merge(pieces, device_of(rollout.output))

    def _checked(self, rollout: Rollout) -> Scores:
        score: Reward = self._process or self.reward  # type: ignore[assignment]
        shield = Shield(rollout)
        scores = score(shield.shown)
        shield.check(self.name)
        return enforce_contract(scores, len(rollout), self.reward.range, self.name)


@dataclass
class GuardedSet(Guarded):
    """One named set reward of a run: a `Reward` of rows by their credit, and a `SetReward` for who re-scores sets.

    Rows that are embedded are counted, timed and watched like rows that are scored: one that fails, or whose embedding
    is not finite, is an ERROR. Their value in the logs is that of the set of all rows embedded in one call.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.reward, Credit):
            raise CapabilityError(f"reward '{self.name}' only scores single rows; use `Guarded`.")
        self._of_sets = RewardTraits.of(self.reward.reward)
        if self._of_sets.isolated:
            raise ConfigError(f"reward '{self.name}': a set reward cannot be `isolated`: its rows are one set.")

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Embed B rows, `rows` at a time; the row of one that failed is NaN.

        Raises:
            ScoreError: no row could be embedded, or too many of the latest rows failed.
            CapabilityError: it cannot judge this modality.
            MmalignError: what it needs cannot be loaded; see `prepare`.
        """
        _require_modality(self.name, self.modalities, rollout.output)
        self.prepare()
        start = time.perf_counter()
        with foreign_call(self.name, len(rollout)), counting_cuts() as cuts:
            shield = Shield(rollout)
            embedded: Embedded = self.reward.embedded(shield.shown)
            shield.check(self.name)
            embedding = embedded.required(self.name)
            scores = self._scores_of(embedded)
        self._record(scores, time.perf_counter() - start, cuts=len(cuts))
        return embedding

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """The value of the set of N embedded rows; higher is better."""
        with self._scoring(1, len(embedding)):
            return self.reward.score(embedding)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to `score`, mean 0; higher is better."""
        with self._scoring(1, len(embedding)):
            return self.reward.credit(embedding)

    @property
    def swap_scores(self) -> Callable[[Tensor, Tensor, int], Float[Tensor, " S"]]:
        """The reward's own way to score sets that differ in a row, see `RewardTraits`; not there if it has none."""
        own = self._of_sets.swap_scores
        if own is None:
            raise AttributeError(f"reward '{self.name}' has no swap_scores.")

        def guarded_swaps(kept: Tensor, other: Tensor, start: int) -> Float[Tensor, " S"]:
            with self._scoring(len(kept) - start, len(kept)):
                return own(kept, other, start)

        return guarded_swaps

    def _scores_of(self, embedded: Embedded) -> Scores:
        """For the logs: the value of the set of all finite rows on each of them, ERROR on the others."""
        rows, finite = embedded.rows.detach(), embedded.finite
        try:
            with torch.no_grad():
                total = float(self.reward.score(rows[finite]))
        except MmalignError:
            raise
        except OF_A_ROW:  # a set of too few rows has no value; who needs it is told why by `score`
            total = math.nan
        of_finite, finite = Status.OK if math.isfinite(total) else Status.NOT_APPLICABLE, finite.cpu()
        status = torch.where(finite, int(of_finite), int(Status.ERROR)).to(torch.int8)
        value = torch.full((len(finite),), total).where(finite, torch.nan)
        return Scores(value, status, info=embedded.reasons())

    @contextmanager
    def _scoring(self, sets: int, rows: int) -> Iterator[None]:
        """Around the scoring of `sets` sets of `rows` rows each, which are counted with their time."""
        start = time.perf_counter()
        with scoring_a_set(self.name, rows):
            yield
        self._metrics.add_sets(sets, time.perf_counter() - start)


def guard(name: str, reward: object, **options: Any) -> Guarded:
    """`reward` guarded under `name`: a `GuardedSet` where it scores sets, else a `Guarded`; options as theirs."""
    sets = isinstance(reward, SetReward | Credit)
    return (GuardedSet if sets else Guarded)(name, reward, **options)


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


def _require_modality(name: str, modalities: frozenset[Modality], output: object) -> None:
    modality = modality_of(output)
    if modality not in modalities:
        raise CapabilityError(f"reward '{name}' judges {', '.join(sorted(modalities))}; these outputs are {modality}.")


def _carries_gradient(output: object) -> bool:
    tensor = output.samples if isinstance(output, Audio) else output
    return isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled()


class Shield:
    """Gives copies of what is small (groups, masks, facts about prompts), and watches what is large.

    Outputs are looked at before and after: the sum of their bits, and PyTorch's count of writes. So are trajectories,
    of which a part is summed, and what prompts are about, by its count of writes alone.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._output, self._latents = list(_tensors(rollout.output)), list(_tensors(rollout.trajectory))
        self._media = [value for prompt in rollout.prompts for value in _tensors(prompt.media)]
        self._before = self._seen()
        self.shown = replace(
            rollout,
            prompts=_copies(rollout.prompts),
            output=list(rollout.output) if isinstance(rollout.output, list) else rollout.output,
            group=rollout.group.clone(),
            trajectory=dict(rollout.trajectory),
            step_logp=_cloned(rollout.step_logp),
            mask=_cloned(rollout.mask),
            truncated=_cloned(rollout.truncated),
        )

    def _seen(self) -> tuple[list[int], list[Tensor]]:
        every = [*self._output, *self._latents]
        sums = [*(_digest(tensor) for tensor in self._output), *(_digest(part, _SAMPLED) for part in self._latents)]
        return [_writes(tensor) for tensor in (*every, *self._media)], sums

    def check(self, name: str) -> None:
        """Raise ScoreError if the reward called `name` wrote into outputs, latents or what prompts are about."""
        (writes, sums), (before, sums_before) = self._seen(), self._before
        if writes != before or not all(map(torch.equal, sums, sums_before)):
            raise ScoreError(
                f"reward '{name}' wrote into what it was given to judge, and training goes on with it; let it work on "
                "a copy (output.clone())."
            )


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Audio):
        yield value.samples
    elif isinstance(value, dict | tuple):  # media that are decoded at each look are nobody's to spoil
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _cloned(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _writes(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _digest(tensor: Tensor, most: int = 0) -> Tensor:
    """The sum of the bits, of at most about `most` entries (0: of all) spread evenly; 0-dimensional, where they lie.

    As words of 8 bytes where they can be read so: smaller ones are widened one by one, which takes ten times as long.
    """
    flat = tensor.detach()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    strides = flat.stride()
    flat = flat.permute(sorted(range(flat.dim()), key=lambda axis: -strides[axis])).reshape(-1)  # as it lies
    if most and len(flat) > most:
        flat = flat[:: len(flat) // most].contiguous()
    size = flat.element_size()
    whole = len(flat) * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    return flat.view(torch.int64 if whole else getattr(torch, f"int{8 * size}")).sum(dtype=torch.int64)


def _copies(prompts: list[Prompt]) -> list[Prompt]:
    """Rows of one prompt stay of one."""
    made: dict[int, Prompt] = {}
    for prompt in prompts:
        if id(prompt) not in made:
            made[id(prompt)] = replace(prompt, meta=_copy(prompt.meta))
    return [made[id(prompt)] for prompt in prompts]


def _copy(value: object) -> Any:
    """Containers are made anew, what they hold stays."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
