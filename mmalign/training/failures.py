"""What ends a run that cannot go on, each with a sentence: nothing is learned, the model diverged, memory is too small.

**Nothing is learned** (`Idle`): no table of no change.

| a step is idle because | how often is that in order? | it ends the run |
|---|---|---|
| no output has a score (not applicable, errors, time-outs) | never: the reward or the data are wrong | after 3 |
| the gradient is not finite | never, but for float16's loss, whose scale is first to be found | after 3 (16) |
| scores are there and equal within every group | now and then, where prompts are easy or hard | after the option |

Steps are counted in a row. A run of which no step at all made an update is ended at its last one, whatever the option.

**The model diverged** (`LossWatch`, `naming_step`): at which step, and what to lower.

**Out of memory** (`collecting`, `updating`, `evaluating`): in which phase, on what shapes, and which options to lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from mmalign.core.config import Trainer
from mmalign.core.errors import Diverged, MmalignError, OutOfMemory, ScoreError
from mmalign.core.experience import Experience
from mmalign.core.objective import Objective, ObjectiveTraits
from mmalign.core.protocols import AnyPolicy, PolicyTraits
from mmalign.core.tensor import Tensor

FEW = 3  # steps in a row that are explained by no luck
_FINDING_SCALE = 16  # steps in which float16's loss may be scaled down to 1
PATIENCE = 3  # updates in a row whose loss is not finite: one bad row, or float16 finding its scale, is not yet the end
#: How the allocators word it where the error has no type of its own.
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")


@dataclass
class Idle:
    """Counts steps without an update, and ends the run where they are too many in a row.

    Args:
        limit: idle steps in a row that end the run (`trainer.stop_on_idle_steps`; 0: none do).
        scaled: the loss is scaled, as float16 needs.
    """

    limit: int
    scaled: bool = False
    learned: bool = False
    _applied: bool = False  # of this step: was an update made
    _finite: bool = True  # and was every gradient
    _row: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("unscored", "endless", "idle"), 0))

    def updated(self, finite: bool) -> None:
        """Take in an update: it was made if its gradient was finite."""
        self._applied, self._finite = self._applied or finite, self._finite and finite

    def finish_step(self, scored: bool) -> None:
        """Count the step; `scored`: had any of its outputs, in any process, a score?"""
        self.learned |= self._applied
        for name, so in (("unscored", not scored), ("endless", not self._finite), ("idle", True)):
            self._row[name] = self._row[name] + 1 if so and not self._applied else 0
        self._applied, self._finite = False, True

    def stop_if_hopeless(self, reward: object, last: bool) -> None:
        """Raise ScoreError where it is time to stop; `last`: after the last step of a run begun in this session."""
        few = {"unscored": FEW, "endless": _FINDING_SCALE if self.scaled else FEW, "idle": self.limit}
        over = [name for name, count in self._row.items() if self.limit and count >= min(few[name], self.limit)]
        if not over and not (last and not self.learned):
            return
        reason = over[0] if over else next(name for name in ("unscored", "endless", "idle") if self._row[name])
        raise ScoreError(f"nothing was learned in the last {_steps(self._row[reason])}: {_why(reason, reward)}")


def _steps(count: int) -> str:
    return f"{count} steps" if count > 1 else "step"


@runtime_checkable
class Summarised(Protocol):
    """A reward that can say what its latest rows came to: a mix."""

    def summary(self) -> str:
        """Return the statuses, reasons and values of the latest rows, in a sentence."""
        ...


def _why(reason: str, reward: object) -> str:
    sentence = f" {reward.summary()}" if isinstance(reward, Summarised) else ""
    if reason == "unscored":
        return f"no output could be scored.{sentence} Mend the reward, its options or the data."
    if reason == "endless":
        return (
            "the gradient was not finite, and such an update is not made. Look for an option that is not finite or far "
            f"too large (trainer.lr, objective), or for scores that are.{sentence}"
        )
    return (
        "within every group all outputs scored the same, or were masked, so that there is nothing to prefer."
        f"{sentence} Choose prompts or a reward that tell outputs apart, or larger groups; trainer.stop_on_idle_steps "
        "says how many such steps in a row are borne (0: all)."
    )


class LossWatch:
    """Counts updates in a row whose loss was not finite; those move nothing, and the next ones will not either."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def see(self, loss: Tensor) -> None:
        """Look at one update's loss. Raises Diverged at the third in a row that is not finite."""
        self._in_a_row = 0 if bool(torch.isfinite(loss)) else self._in_a_row + 1
        if self._in_a_row >= PATIENCE:
            raise Diverged(f"the loss of {PATIENCE} updates in a row is not finite ({float(loss)}): the model diverged")


@contextmanager
def naming_step(trainer: Trainer, step: int) -> Iterator[None]:
    """Inside it, what says that the model diverged says at which step (counted from 0) of how many, and what to do."""
    try:
        yield
    except Diverged as error:
        raise Diverged(
            f"step {step + 1} of {trainer.steps}: {error}. Lower trainer.lr (now {trainer.lr:g}) or raise "
            f"trainer.warmup (now {trainer.warmup}), and start again, or resume from a checkpoint before it."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Did an allocation on the GPU or the CPU fail? Our own errors may quote a server that had no room."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, MmalignError):
        return False
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


@contextmanager
def explain_allocation(phase: str, tell: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Inside it, a failed allocation is told as one of `phase`, with the shapes and the advice that `tell` gives.

    Raises:
        OutOfMemory: instead of what the allocator raised, which stays its cause.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        shapes, advice = tell()
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OutOfMemory(f"out of memory in phase '{phase}' ({shapes}): {advice}. The allocator: {first}") from error


def collecting(policy: AnyPolicy, objective: Objective[Any], batch: Sequence[Any]) -> AbstractContextManager[None]:
    """Explain a failed allocation in `objective.collect`: sampling, scoring, reference."""

    def tell() -> tuple[str, str]:
        traits = ObjectiveTraits.of(objective)
        size = traits.group_size or traits.samples_per_prompt
        rows = PolicyTraits.of(policy).rows
        options = [] if rows is None else [f"policy.rows (now {rows or 'all'})"]
        options += ["objective.reference_rows"] if traits.reference_rows is not None else []
        advice = f"lower {', '.join(options)}, a large reward's call_rows, or trainer.prompts_per_step"
        return f"{len(batch)} prompts x {size} outputs{_latents(policy)}", advice + _switch(
            policy, "offload_text_encoder"
        )

    return explain_allocation("collect", tell)


def updating(
    policy: AnyPolicy, experience: Experience, trainer: Trainer, phase: str = "update"
) -> AbstractContextManager[None]:
    """Explain a failed allocation in the forward-backward passes of one minibatch."""

    def tell() -> tuple[str, str]:
        mask, count = experience.mask, len(experience)
        length = mask.shape[1] if mask.ndim > 1 else 1
        at_once = 0 if trainer.steps_per_pass == "auto" else trainer.steps_per_pass
        rows, steps = min(trainer.micro_batch_size or count, count), min(at_once or length, length)
        work = f"{rows} of {count} rows x {steps} of {length} steps at once{_latents(policy)}"
        shapes = ", ".join(dict.fromkeys(_shapes(experience)))
        advice = (
            f"lower trainer.micro_batch_size (now {trainer.micro_batch_size or 'all'}) "
            f"or trainer.steps_per_pass (now {at_once or 'all'})"
        )
        return f"{work}; {shapes}" if shapes else work, advice + _switch(policy, "gradient_checkpointing")

    return explain_allocation(phase, tell)


def evaluating(prompts: int, rows: int) -> AbstractContextManager[None]:
    """Explain a failed allocation in an evaluation or a preview of `prompts` prompts, `rows` at once."""
    return explain_allocation(
        "evaluate",
        lambda: (f"{prompts} prompts, {rows} at once", f"lower evaluation.rows (now {rows}) or policy.rows"),
    )


def _latents(policy: AnyPolicy) -> str:
    shape = getattr(getattr(policy, "adapter", None), "latent_shape", None)
    return "" if shape is None else f", latents {tuple(shape)}"


def _switch(policy: AnyPolicy, option: str) -> str:
    """Advice to turn on an option that the adapter has and that is off."""
    off = getattr(getattr(policy, "adapter", None), option, None) is False
    return f", or set adapter.{option}: true" if off else ""


def _shapes(value: object, name: str = "") -> Iterator[str]:
    """`name (B, ...)` of the larger tensors inside a record."""
    if isinstance(value, Tensor) and value.ndim > 2:
        yield f"{name} {tuple(value.shape)}"
    elif isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type)):
        for key, entry in (value if isinstance(value, dict) else vars(value)).items():
            yield from _shapes(entry, str(key))
