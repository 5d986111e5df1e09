"""Stops a run whose reward keeps failing, and says which and why; remembers what its rows came to."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from mmalign.core.errors import ScoreError
from mmalign.core.types import Scores, Status

_FAILED = (Status.ERROR, Status.TIMEOUT)


@dataclass
class Breaker:
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

    def told(self) -> str:
        """What the latest rows came to: every status counted with its latest reason, and the values' span."""
        counts = Counter(status for status, _ in self._recent)
        said = [f"{count} {status.label}" + self._because(status) for status, count in counts.most_common()]
        values = [value for _, value in self._recent if math.isfinite(value)]
        span = f"; values from {min(values):.4g} to {max(values):.4g}" if values else ""
        return f"reward '{self.name}', its last {len(self._recent)} rows: {', '.join(said) or 'none'}{span}."

    def _because(self, status: Status) -> str:
        return f" ({self._why[status]})" if status in self._why and status is not Status.OK else ""
