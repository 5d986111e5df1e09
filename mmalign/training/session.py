"""The state of one training run in one process: where it stands, its random streams, its optimizer, its numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.training.meter import Meter
from mmalign.training.update import Update


@dataclass
class Session:
    """Everything the loop needs besides policy and objective.

    Args:
        trainer: the run file's options.
        accelerator: an `accelerate.Accelerator`, already prepared; None for one plain process.
        update: optimizer, schedule and average of the trained weights.
        batches: an iterator of batches with `state_dict`/`load_state_dict`.
        streams: the run's named random generators.
        record: where each step's numbers go, `record(step, numbers)`.
    """

    trainer: Trainer
    update_rule: Update
    batches: Any
    streams: Streams
    accelerator: Any = None
    record: Callable[[int, dict[str, float]], None] = lambda step, numbers: None
    step: int = 0
    started_at: int = 0
    meter: Meter = field(default_factory=Meter)
    latest: dict[str, float] = field(default_factory=dict)

    @property
    def spans(self) -> int:
        """Steps per forward-backward pass."""
        return self.trainer.spans or 1 << 30

    @property
    def is_main(self) -> bool:
        """Does this process write files?"""
        return self.accelerator is None or bool(self.accelerator.is_main_process)

    def rows(self, experience: Any) -> int:
        """Rows per forward-backward pass."""
        return self.trainer.rows or max(len(experience), 1)

    def remaining(self) -> Iterator[list[Any]]:
        """The batches of the steps still to do."""
        self.started_at = self.step
        while self.step < self.trainer.steps:
            yield next(self.batches)

    def mean(self, total: Tensor) -> Tensor:
        """The mean of a tensor over processes, entry by entry, on the tensor's own device."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return total
        shared = self.accelerator.reduce(total.to(self.accelerator.device), reduction="mean")
        return shared.to(total.device)  # type: ignore[no-any-return]

    def random_states(self) -> dict[str, Tensor]:
        """The states of every process's streams, by name, behind "rank/" where that is not 0; all processes call it."""
        own = self.streams.state_dict()
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return own
        from accelerate.utils import gather_object

        every = gather_object([own])
        return {f"{rank}/{name}" if rank else name: v for rank, held in enumerate(every) for name, v in held.items()}

    def spread(self, objective: Any) -> None:
        """Let the statistics of the objective and its reward cover the rows of every process."""
        parts: tuple[Any, ...] = (objective, getattr(objective, "reward", None))
        for part in parts:
            if hasattr(part, "over_ranks"):
                part.over_ranks = self.mean

    def synchronised(self, module: nn.Module, when: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over processes only in the last chunk of an update."""
        if self.accelerator is None or when or self.accelerator.num_processes == 1:
            return nullcontext()
        return self.accelerator.no_sync(module)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss`, times the scale that the update divides by."""
        # Not `accelerator.backward`: it divides and scales by options of the launch, which weights do not know of.
        self.update_rule.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, trained: bool) -> None:
        """Apply the accumulated gradient; without any valid row anywhere, momentum alone must not move the weights."""
        device = self.update_rule.parameters[0].device
        anywhere = self.mean(torch.tensor(float(trained), device=device)) > 0
        if anywhere:
            norm = self.update_rule.apply()
            self.meter.add({"grad/norm": norm, "update/skipped": (~norm.isfinite()).float()})
        else:
            self.update_rule.forget()
            self.meter.add({"update/skipped": 1.0})

    @contextmanager
    def timed(self, station: str) -> Iterator[None]:
        """Add the seconds inside to `time/<station>` of this step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            name = f"time/{station}"
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def finish_step(self, objective: Any, experience: Any) -> None:
        """Count the step and record its numbers."""
        numbers = {"lr": self.update_rule.lr, **self.meter.take(), **self._seconds}
        for source in (experience, getattr(objective, "reward", None)):
            metrics = getattr(source, "metrics", None)
            numbers |= metrics() if callable(metrics) else (metrics or {})
        if torch.cuda.is_available():
            numbers["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._seconds.clear()
        self.step += 1
        self.update_rule.count = self.step * self.trainer.minibatches  # also where there were fewer rows than that
        self.latest = {name: float(value) for name, value in numbers.items()}
        self.record(self.step, self.latest)

    def __post_init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._opened = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since this session was opened."""
        return time.perf_counter() - self._opened
