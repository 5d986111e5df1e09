"""Running out of memory ends a run with a sentence: in which phase, on what shapes, and which options to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch

from mmalign.core.config import Trainer
from mmalign.core.errors import OutOfMemory
from mmalign.core.experience import Experience
from mmalign.core.objective import Objective
from mmalign.core.protocols import AnyPolicy
from mmalign.core.tensor import Tensor

#: How the allocators word it where the error has no type of its own.
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Did an allocation on the GPU or the CPU fail?"""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
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
        size = getattr(objective, "group_size", getattr(objective, "samples_per_prompt", 1))
        rows = getattr(policy, "rows", 0)
        options = [f"policy.rows (now {rows or 'all'})"] if hasattr(policy, "rows") else []
        options += ["objective.reference_rows"] if hasattr(objective, "reference_rows") else []
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


def _shapes(value: Any, name: str = "") -> Iterator[str]:
    """`name (B, ...)` of the larger tensors inside a record."""
    if isinstance(value, Tensor) and value.ndim > 2:
        yield f"{name} {tuple(value.shape)}"
    elif isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type)):
        for key, entry in (value if isinstance(value, dict) else vars(value)).items():
            yield from _shapes(entry, str(key))
