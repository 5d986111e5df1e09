"""One thread per reward, in which requests that come close together are scored as one batch.

Rows of several requests join where they are of one shape, up to `batch` rows, within `wait` seconds of the first; a
request of more rows is scored `batch` rows at a time. Rewards whose scores depend on the other rows of a batch get each
request alone and whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch

from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Rollout, Scores, join
from mmalign.rewards.engine.call import Guarded
from mmalign.rewards.engine.contract import merge

__all__ = ["Scored", "Scorer"]


@dataclass(frozen=True)
class Scored:
    """The scores of a request, on the CPU; `rows` were scored with it in `seconds`."""

    scores: Scores
    rows: int
    seconds: float


@dataclass(eq=False)
class _Job:
    rollout: Rollout
    answer: Future[Scored] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> Hashable:
        """Equal where rows can stand in one batch."""
        rollout, made = self.rollout, self.rollout.output
        tensors = [made.samples, made.mask] if isinstance(made, Audio) else [made] if isinstance(made, Tensor) else []
        shapes = [None if t is None else (tuple(t.shape[1:]), t.dtype) for t in (*tensors, rollout.mask)]
        return type(made), getattr(made, "rate", 0), tuple(shapes), rollout.truncated is None


class Scorer:
    """A reward, its queue and its thread.

    Args:
        reward: as a run calls it.
        device: where outputs are put, and the reward's model with them.
        batch: rows of a call at most.
        wait: seconds that the first of a batch waits for others.
    """

    def __init__(self, reward: Guarded, device: torch.device, batch: int, wait: float) -> None:
        self.reward, self.device, self.batch, self.wait = reward, device, batch, wait
        self.alone = reward.traits.batch_dependent
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name=f"scores {reward.name}", daemon=True)
        self._thread.start()

    def submit(self, rollout: Rollout) -> Future[Scored]:
        """Have B rows scored; the future raises what ends the call: a fault of the set-up, not of a row."""
        job = _Job(rollout)
        with self._changed:
            if not self._open:
                raise RuntimeError("the server ends")
            self._jobs.append(job)
            self._changed.notify()
        return job.answer

    def close(self, patience: float = 5.0) -> None:
        """Take no more, and end the thread after the batch that it is at, for which `patience` seconds are waited."""
        with self._changed:
            self._open = False
            for job in self._jobs:
                job.answer.cancel()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while jobs := self._next():
            jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            try:
                self._answer(jobs)
            except BaseException as error:  # of a set-up, or our own: nobody waits for ever
                for job in jobs:
                    if not job.answer.done():
                        job.answer.set_exception(error)

    def _next(self) -> list[_Job]:
        """The jobs of the next batch, once it is full or its time is up; [] when the server ends."""
        with self._changed:
            while self._open:
                if not self._jobs:
                    self._changed.wait()
                    continue
                together = self._alike()
                left = self._jobs[0].since + self.wait - time.monotonic()
                if self.alone or left <= 0 or sum(len(job.rollout) for job in together) >= self.batch:
                    self._jobs = [job for job in self._jobs if job not in together]
                    return together
                self._changed.wait(left)
        return []

    def _alike(self) -> list[_Job]:
        """The first job and those after it that can be scored with it, as many as fit."""
        first = self._jobs[0]
        together, rows = [first], len(first.rollout)
        for job in [] if self.alone else self._jobs[1:]:
            if rows + len(job.rollout) <= self.batch and job.kind == first.kind:
                together.append(job)
                rows += len(job.rollout)
        return together

    def _answer(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        start = time.perf_counter()
        try:
            scores = self._scores(_joined([job.rollout for job in jobs]))
        except Exception:
            if len(jobs) == 1:
                raise
            for job in jobs:  # what ends the call of one is nothing to the others
                self._alone(job)
            return
        seconds, done = time.perf_counter() - start, 0
        for job in jobs:
            rows = len(job.rollout)
            job.answer.set_result(Scored(scores[done : done + rows], len(scores), seconds))
            done += rows

    def _alone(self, job: _Job) -> None:
        try:
            self._answer([job])
        except Exception as error:
            job.answer.set_exception(error)

    def _scores(self, rollout: Rollout) -> Scores:
        rows = len(rollout) if self.alone else self.batch
        with torch.no_grad():
            pieces = [
                self.reward(rollout[start : start + rows].to(self.device)) for start in range(0, len(rollout), rows)
            ]
            return merge(pieces, "cpu").to("cpu")


def _joined(rollouts: Sequence[Rollout]) -> Rollout:
    """Rows of several requests as one batch; their groups are different ones."""
    start, moved = 0, []
    for rollout in rollouts:
        moved.append(replace(rollout, group=rollout.group + start) if start else rollout)
        start += int(rollout.group.max()) + 1
    return join(moved)
