"""What a reward did since it was last asked: values, statuses, time, cache hits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmalign.core.types import Scores, Status
from mmalign.rewards.functional import group_normalize


@dataclass
class Tally:
    """Sums over calls; `take` gives them away, `read` tells their numbers."""

    _values: list[Tensor] = field(default_factory=list)
    _statuses: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)
    _parts: dict[str, list[Tensor]] = field(default_factory=dict)
    _hits: int = 0
    _cut: int = 0

    def add(self, scores: Scores, seconds: float, hits: int, cut: int = 0) -> None:
        """One call: its scores, how long it took, rows that came from the cache, texts that were read in part."""
        self._values.append(scores.value.detach().float().cpu()[scores.valid.cpu()])
        self._statuses += scores.status.tolist()
        for name, part in scores.parts.items():
            self._parts.setdefault(name, []).append(part.detach().float().cpu())
        self._seconds.append(seconds)
        self._hits += hits
        self._cut += cut

    def take(self) -> Tally:
        """What there is, to be joined with that of other processes; this one starts afresh."""
        taken = Tally(self._values, self._statuses, self._seconds, self._parts, self._hits, self._cut)
        self.__init__()  # type: ignore[misc]
        return taken

    @classmethod
    def joined(cls, tallies: Iterable[Tally]) -> Tally:
        """As if one process had made all their calls."""
        whole = cls()
        for one in tallies:
            whole._values += one._values
            whole._statuses += one._statuses
            whole._seconds += one._seconds
            whole._hits += one._hits
            whole._cut += one._cut
            for name, pieces in one._parts.items():
                whole._parts.setdefault(name, []).extend(pieces)
        return whole

    def read(self) -> dict[str, Tensor]:
        """mean, std, min, max; the share of every status that occurred; seconds (p50, p95 a call); cached share.

        "texts_cut" is how many texts the reward's model read only in part (not there if none).
        "parts/…" is the mean of each part over the rows that have it.
        """
        if not self._statuses:
            return {}
        values, rows = torch.cat(self._values), len(self._statuses)
        found: dict[str, float] = {}
        if len(values):
            found = {"mean": float(values.mean()), "std": float(values.std(correction=0))}
            found |= {"min": float(values.min()), "max": float(values.max())}
        for status in Status:
            if (count := self._statuses.count(int(status))) or status in (Status.OK, Status.ERROR):
                found[status.label] = count / rows
        seconds = torch.tensor(self._seconds)
        found |= {"seconds": float(seconds.quantile(0.5)), "seconds_p95": float(seconds.quantile(0.95))}
        if self._hits:
            found["cached"] = self._hits / rows
        if self._cut:
            found["texts_cut"] = float(self._cut)
        for name, pieces in self._parts.items():
            part = torch.cat(pieces)
            if len(told := part[~part.isnan()]):
                found[f"parts/{name}"] = float(told.mean())
        return {name: torch.tensor(value) for name, value in found.items()}


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
