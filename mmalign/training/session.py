"""The state of one training run in one process: where it stands, its random streams, its optimizer, its numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from mmalign.core.config import Trainer
from mmalign.core.experience import Experience
from mmalign.core.metrics import Meter, merged
from mmalign.core.objective import Objective, ObjectiveTraits
from mmalign.core.protocols import Accelerator, Gather, Synchronized
from mmalign.core.rng import Streams
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout, Scores
from mmalign.training.failures import Idle
from mmalign.training.patience import Patient
from mmalign.training.update import Update

T = TypeVar("T")


@runtime_checkable
class Sink(Protocol):
    """Where a run's numbers and samples go. Every process calls it; the main one writes."""

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take numbers of a step, by names of `mmalign.core.metrics`; of one step they may come in parts."""
        ...

    def samples(self, step: int, rollout: Rollout, scores: Mapping[str, Scores]) -> None:
        """Take held-out outputs with their scores."""
        ...


class Nowhere:
    """A sink that forgets numbers and samples, for sessions that nobody watches."""

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Forget numbers."""

    def samples(self, step: int, rollout: Rollout, scores: Mapping[str, Scores]) -> None:
        """Forget samples."""


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall-clock seconds that pass inside it to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@runtime_checkable
class SharesMetrics(Protocol):
    """A reward that knows how its numbers of several processes become one: a mix."""

    def shared_metrics(self, gather: Gather) -> Mapping[str, Tensor]:
        """Return the metrics of the rows of every process; all call it."""
        ...


@runtime_checkable
class KnowsUnscored(Protocol):
    """A reward that knows whether any of its latest rows had a value: a mix; a reward alone need not."""

    @property
    def unscored(self) -> bool:
        """Has none of the rows since the last metrics a value?"""
        ...


@dataclass
class Session:
    """Everything the loop needs besides policy and objective.

    Args:
        trainer: the run file's options.
        accelerator: an `accelerate.Accelerator`, already prepared; None for one plain process.
        update: optimizer, schedule and average of the trained weights.
        batches: an iterator of batches with `state_dict`/`load_state_dict`.
        streams: the run's named random generators.
        sink: where numbers and samples go.
        proven: how often the policy was seen to agree with itself, once before and once after an update moved it.
    """

    trainer: Trainer
    update_rule: Update
    batches: Any
    streams: Streams
    accelerator: Accelerator = None
    sink: Sink = field(default_factory=Nowhere)
    step: int = 0
    started_at: int = 0
    seconds_before: float = 0.0
    proven: int = 0
    meter: Meter = field(default_factory=Meter)
    latest: dict[str, float] = field(default_factory=dict)
    _read_of: Objective[Any] | None = field(default=None, init=False, repr=False)
    _traits: ObjectiveTraits = field(default_factory=ObjectiveTraits, init=False, repr=False)

    @property
    def steps_per_pass(self) -> int:
        """Steps per forward-backward pass; "auto" that nobody has decided is all."""
        return (0 if self.trainer.steps_per_pass == "auto" else self.trainer.steps_per_pass) or 1 << 30

    @property
    def moved(self) -> bool:
        """Has an update of an earlier step of this session changed the weights?"""
        return self._idle.learned

    @property
    def unproven(self) -> bool:
        """Is it time to see whether the policy agrees with itself?"""
        return self.proven < 1 + self.moved

    @property
    def is_main(self) -> bool:
        """Does this process write files?"""
        return self.accelerator is None or bool(self.accelerator.is_main_process)

    def rows(self, experience: Experience) -> int:
        """Rows per forward-backward pass."""
        return self.trainer.micro_batch_size or max(len(experience), 1)

    def remaining(self) -> Iterator[list[Any]]:
        """The batches of the steps still to do."""
        self.started_at = self.step
        while self.step < self.trainer.steps:
            yield next(self.batches)

    @property
    def processes(self) -> int:
        """How many train together."""
        return 1 if self.accelerator is None else int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """The number of this process among them, from 0."""
        return 0 if self.accelerator is None else int(self.accelerator.process_index)

    def meet(self) -> None:
        """Wait until every process is here, however long that takes; a process that is gone is an error.

        A collective gives up after some minutes, and one process may have a slower judge, disk or download than others.
        """
        if self.processes > 1:
            self._patient.meet()

    def gather(self, value: T) -> list[T]:
        """Return what every process holds, in their order; all call it."""
        return [value] if self.processes == 1 else self._patient.gather(value)

    def mean(self, total: Tensor) -> Tensor:
        """Return the mean of a tensor over processes, entry by entry, on the tensor's own device."""
        if self.processes == 1:
            return total
        self.meet()
        shared = self.accelerator.reduce(total.to(self.accelerator.device), reduction="mean")
        return shared.to(total.device)

    def random_states(self) -> dict[str, Tensor]:
        """The states of every process's streams, by name, behind "rank/" where that is not 0; all processes call it."""
        every = self.gather(self.streams.state_dict())
        return {f"{rank}/{name}" if rank else name: v for rank, state in enumerate(every) for name, v in state.items()}

    def share_statistics(self, objective: Objective[Any]) -> None:
        """Let the statistics of the objective and its reward cover the rows of every process."""
        for part in (objective, self.traits(objective).reward):
            if isinstance(part, Synchronized):
                part.over_ranks = self.mean

    def traits(self, objective: Objective[Any]) -> ObjectiveTraits:
        """Return what the objective of this session says of itself, read once."""
        if self._read_of is not objective:
            self._read_of, self._traits = objective, ObjectiveTraits.of(objective)
        return self._traits

    def synchronised(self, module: torch.nn.Module, when: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over processes only in the last chunk of an update."""
        if when or self.processes == 1:
            return nullcontext()
        return self.accelerator.no_sync(module)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss`, times the scale that the update divides by."""
        # Not `accelerator.backward`: it divides and scales by options of the launch, which weights do not know of.
        self.update_rule.scaler.scale(loss).backward()

    def update(self, trained: bool) -> None:
        """Apply the accumulated gradient; without any valid row anywhere, momentum alone must not move the weights."""
        device = self.update_rule.parameters[0].device
        anywhere = self.mean(torch.tensor(float(trained), device=device)) > 0
        if anywhere:
            norm = self.update_rule.apply()
            finite = bool(norm.isfinite())
            self._idle.updated(finite)
            self.meter.add({"grad/norm": norm, "update/skipped": float(not finite)})
        else:
            self.update_rule.forget()
            self.meter.add({"update/skipped": 1.0})

    def timed(self, phase: str) -> AbstractContextManager[None]:
        """Add the seconds inside to `time/<phase>` of this step."""
        return timed(self._seconds, f"time/{phase}")

    def timed_apart(self, what: str) -> AbstractContextManager[None]:
        """Add the seconds inside to `time/<what>`, which is logged after the hooks and is no part of any step."""
        return timed(self._seconds_apart, f"time/{what}")

    def finish_hooks(self) -> None:
        """Log the seconds of what was timed apart."""
        if self._seconds_apart:
            self.log(dict(self._seconds_apart))
            self._seconds_apart.clear()

    def log(self, numbers: Mapping[str, float]) -> None:
        """Hand numbers of the step that was taken last to the sink."""
        self.sink.numbers(self.step, numbers)

    def finish_step(self, objective: Objective[Any], experience: Experience) -> None:
        """Count the step and record its numbers.

        Raises:
            ScoreError: too many steps in a row, or all, had nothing to learn from; see `training.failures`.
        """
        reward = self.traits(objective).reward
        unscored = torch.tensor(float(isinstance(reward, KnowsUnscored) and reward.unscored))
        self._idle.finish_step(scored=float(self.mean(unscored)) < 1)  # one answer for all processes
        worst = dict(self._seconds)
        if torch.cuda.is_available():
            worst["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        means, *others = self.gather(self.meter.take_sums()), *self.gather(worst)
        numbers = {"lr": self.update_rule.lr, **merged(means)}
        numbers |= {name: max(other.get(name, 0.0) for other in others) for name in worst}
        for source in (experience, reward):
            numbers |= self._metrics_of(source)
        self._seconds.clear()
        self.step += 1
        self.update_rule.count = self.step * self.trainer.minibatches  # also where there were fewer rows than that
        self.latest = {name: float(value) for name, value in numbers.items()}
        self.log(self.latest)
        last = self.step >= self.trainer.steps and self.started_at == 0
        self._idle.stop_if_hopeless(reward, last)

    @cached_property
    def _patient(self) -> Patient:
        return Patient()  # all processes come here first at the same point

    def _metrics_of(self, source: object) -> Mapping[str, Any]:
        """The metrics of an experience or a reward, over the rows of every process where it can say so."""
        if isinstance(source, SharesMetrics):
            return source.shared_metrics(self.gather)
        if (metrics := getattr(source, "metrics", None)) is None:
            return {}
        own = {name: float(value) for name, value in ((metrics() if callable(metrics) else metrics) or {}).items()}
        return merged(self.gather({name: (value, 1.0) for name, value in own.items()}))

    def __post_init__(self) -> None:
        self._idle = Idle(self.trainer.stop_on_idle_steps, self.update_rule.scaler.is_enabled())
        self._seconds: dict[str, float] = {}
        self._seconds_apart: dict[str, float] = {}
        self._opened = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken: since this session was opened, and before it was resumed."""
        return self.seconds_before + time.perf_counter() - self._opened
