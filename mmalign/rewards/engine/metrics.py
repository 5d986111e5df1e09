"""What a reward's calls came to: values, statuses and seconds for the logs, and the failures that end a run."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores, Status
from mmalign.rewards.functional import group_normalize


@dataclass
class MetricAccumulator:
    """What calls came to, kept since the last `pop`; `compute` makes scalars of it."""

    _values: list[Tensor] = field(default_factory=list)
    _statuses: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)
    _parts: dict[str, list[Tensor]] = field(default_factory=dict)
    _hits: int = 0
    _cut: int = 0
    _sets: int = 0
    _set_seconds: float = 0.0
    _requests: Counter[str] = field(default_factory=Counter)

    def add(self, scores: Scores, seconds: float, hits: int, cut: int = 0) -> None:
        """One call: its scores, how long it took, rows that came from the cache, texts that were read in part."""
        self._values.append(scores.value.detach().float().cpu()[scores.valid.cpu()])
        self._statuses += scores.status.tolist()
        for name, part in scores.parts.items():
            self._parts.setdefault(name, []).append(part.detach().float().cpu())
        self._seconds.append(seconds)
        self._hits += hits
        self._cut += cut

    def add_sets(self, sets: int, seconds: float) -> None:
        """`sets` sets of embedded rows that were scored, and the seconds of all of them."""
        self._sets += sets
        self._set_seconds += seconds

    def add_requests(self, requests: Mapping[str, int]) -> None:
        """What servers were asked in one call, see `mmalign.core.asked`."""
        self._requests.update(requests)

    def pop(self) -> MetricAccumulator:
        """Return what was accumulated, to be joined with that of other processes, and start afresh."""
        popped = replace(self)
        vars(self).update(vars(MetricAccumulator()))
        return popped

    @classmethod
    def joined(cls, accumulators: Iterable[MetricAccumulator]) -> MetricAccumulator:
        """Join them as if one process had made all their calls."""
        whole = cls()
        for one in accumulators:
            whole._values += one._values
            whole._statuses += one._statuses
            whole._seconds += one._seconds
            whole._hits += one._hits
            whole._cut += one._cut
            whole._sets += one._sets
            whole._requests.update(one._requests)
            whole._set_seconds += one._set_seconds
            for name, pieces in one._parts.items():
                whole._parts.setdefault(name, []).extend(pieces)
        return whole

    def compute(self) -> dict[str, Tensor]:
        """mean, std, min, max; the share of every status that occurred; seconds (p50, p95 a call); cached share.

        "sets" is how many sets of embedded rows an objective had scored, "sets_seconds" the time of all of them.
        "requests", "retries", "prompt_tokens", "completion_tokens" are what servers were asked (not there if nothing).
        "texts_cut" is how many texts the reward's model read only in part (not there if none).
        "parts/…" is the mean of each part over the rows that have it.
        """
        if not self._statuses:
            return {}
        values, rows = torch.cat(self._values), len(self._statuses)
        numbers: dict[str, float] = {}
        if len(values):
            numbers = {"mean": float(values.mean()), "std": float(values.std(correction=0))}
            numbers |= {"min": float(values.min()), "max": float(values.max())}
        for status in Status:
            if (count := self._statuses.count(int(status))) or status in (Status.OK, Status.ERROR):
                numbers[status.label] = count / rows
        seconds = torch.tensor(self._seconds)
        numbers |= {"seconds": float(seconds.quantile(0.5)), "seconds_p95": float(seconds.quantile(0.95))}
        if self._hits:
            numbers["cached"] = self._hits / rows
        if self._cut:
            numbers["texts_cut"] = float(self._cut)
        numbers |= {name: float(count) for name, count in self._requests.items()}
        if self._sets:
            numbers |= {"sets": float(self._sets), "sets_seconds": self._set_seconds}
        for name, pieces in self._parts.items():
            part = torch.cat(pieces)
            if len(present := part[~part.isnan()]):
                numbers[f"parts/{name}"] = float(present.mean())
        return {name: torch.tensor(value) for name, value in numbers.items()}


def flat_share(value: Float[Tensor, " B"], group: Int[Tensor, " B"]) -> float:
    """The share of groups (of two or more scored rows) whose rows all score the same: nothing to learn from them."""
    z = group_normalize(value.detach().float().cpu(), group.cpu())
    numbers = [z[(group.cpu() == g) & ~z.isnan()] for g in group.unique().tolist()]
    groups = [n for n in numbers if len(n) > 1]
    return sum(bool((n == 0).all()) for n in groups) / len(groups) if groups else 0.0


def correlation(first: Float[Tensor, " B"], second: Float[Tensor, " B"]) -> float | None:
    """Pearson's over rows where both have a value; None below 3 such rows or where one does not vary."""
    pair = torch.stack([first.detach().double().cpu(), second.detach().double().cpu()])
    pair = pair[:, ~pair.isnan().any(0)]
    if pair.shape[1] < 3 or bool((pair.std(1) < 1e-9).any()):
        return None
    return float(torch.corrcoef(pair)[0, 1])


_FAILED = (Status.ERROR, Status.TIMEOUT)


@dataclass
class FailureLimit:
    """Counts our own failures (ERROR, TIMEOUT) over the last `window` rows.

    Args:
        name: of the reward, for the message.
        share: failed share above which the run stops; 1 never stops it.
        window: rows remembered; the share is taken over what is there, from `least` rows on.
        least: rows seen before it may stop anything.
    """

    name: str
    share: float = 0.5
    window: int = 256
    least: int = 8
    _recent: deque[tuple[Status, float]] = field(default_factory=deque, repr=False)  # and the value, NaN without one
    _why: dict[Status, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the failed share that stops a run is in [0, 1], got {self.share}")
        self._recent = deque(maxlen=self.window)

    def watch(self, scores: Scores) -> None:
        """Take in one call's scores.

        Raises:
            ScoreError: too large a share failed; names the reward, the count and the latest reason.
        """
        states = [Status(status) for status in scores.status.tolist()]
        self._recent.extend(zip(states, scores.value.detach().float().tolist(), strict=True))
        latest: dict[Status, str] = {}
        for status, info in zip(states, scores.info or [], strict=False):
            if info:
                latest.setdefault(status, info)
        self._why |= latest
        count = sum(status in _FAILED for status, _ in self._recent)
        if len(self._recent) >= self.least and count > self.share * len(self._recent):
            why = next((self._why[status] for status in _FAILED if status in self._why), "no reason given")
            raise ScoreError(
                f"reward '{self.name}' failed on {count} of the last {len(self._recent)} rows "
                f"(limit {self.share:.0%}); for example: {why}."
            )

    def summary(self) -> str:
        """What the latest rows came to: every status counted with its latest reason, and the values' span."""
        counts = Counter(status for status, _ in self._recent)
        states = [f"{count} {status.label}" + self._because(status) for status, count in counts.most_common()]
        values = [value for _, value in self._recent if math.isfinite(value)]
        span = f"; values from {min(values):.4g} to {max(values):.4g}" if values else ""
        return f"reward '{self.name}', its last {len(self._recent)} rows: {', '.join(states) or 'none'}{span}."

    def _because(self, status: Status) -> str:
        return f" ({self._why[status]})" if status in self._why and status is not Status.OK else ""
