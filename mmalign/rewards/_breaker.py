"""Stops a run whose reward keeps failing, and says which and why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from mmalign.core.errors import ScoreError
from mmalign.core.types import Scores, Status


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
    _recent: deque[bool] = field(default_factory=deque, repr=False)
    _why: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the failed share that stops a run is in [0, 1], got {self.share}")
        self._recent = deque(maxlen=self.window)

    def watch(self, scores: Scores) -> None:
        """Take in one call's scores.

        Raises:
            ScoreError: too large a share failed; names the reward, the count and the latest reason.
        """
        failed = [status in (Status.ERROR, Status.TIMEOUT) for status in scores.status.tolist()]
        self._recent.extend(failed)
        if any(failed) and scores.info:
            self._why = next((scores.info[i] for i, bad in enumerate(failed) if bad and scores.info[i]), self._why)
        count = sum(self._recent)
        if len(self._recent) >= self.least and count > self.share * len(self._recent):
            raise ScoreError(
                f"reward '{self.name}' failed on {count} of the last {len(self._recent)} rows "
                f"(limit {self.share:.0%}); for example: {self._why or 'no reason given'}."
            )
