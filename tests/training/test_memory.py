"""Out of memory is a sentence: the phase, the shapes, what to lower; every other error passes as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmalign.core.errors import MmalignError, OutOfMemory, ScoreError
from mmalign.core.types import Scores
from mmalign.training.failures import evaluating, is_out_of_memory
from mmalign.training.loop import training_loop
from tests.training.problem import Problem

TOO_MUCH = 1 << 55  # bytes: more than any address space


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ScoreError("the server answers 500: CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


class Greedy:
    """A reward that wants more memory than there is."""

    modalities = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Any) -> Scores:
        return Scores.of(torch.empty(TOO_MUCH))


def test_while_collecting() -> None:
    problem = Problem(prompts_per_step=3)
    problem.objective.reward = Greedy()
    problem.policy.rows = 8
    with pytest.raises(OutOfMemory) as caught:
        training_loop(problem.policy, problem.objective, problem.session)
    told = str(caught.value)
    assert told.startswith("out of memory in phase 'collect' (3 prompts x 4 outputs, latents (1, 1, 2)): lower ")
    assert "policy.rows (now 8), objective.reference_rows, a large reward's call_rows, or trainer.prompts_per" in told
    assert "allocate" in told.split("The allocator: ")[1]
    assert isinstance(caught.value, MmalignError) and isinstance(caught.value.__cause__, RuntimeError)


def test_while_updating(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(micro_batch_size=5, steps_per_pass=2)
    adapter: Any = problem.adapter
    adapter.gradient_checkpointing = False
    loss = problem.objective.loss

    def hungry(policy: Any, chunk: Any, rng: Any) -> Any:
        torch.empty(TOO_MUCH)
        return loss(policy, chunk, rng)

    monkeypatch.setattr(problem.objective, "loss", hungry)
    with pytest.raises(OutOfMemory) as caught:
        training_loop(problem.policy, problem.objective, problem.session)
    told = str(caught.value)
    assert told.startswith("out of memory in phase 'update' (5 of 16 rows x 2 of 3 steps at once, latents (1, 1, 2); ")
    assert "output (16, 1, 1, 2)" in told and "x (16, 3, 1, 1, 2)" in told
    assert (
        "): lower trainer.micro_batch_size (now 5) or trainer.steps_per_pass (now 2), or set adapter.gradient_checkp"
        "ointing: true. The" in told
    )


def test_while_evaluating_and_other_errors() -> None:
    with (
        pytest.raises(
            OutOfMemory,
            match=r"phase 'evaluate' \(9 prompts, 4 at once\): lower evaluation.rows \(now 4\) or policy.rows. The",
        ),
        evaluating(9, 4),
    ):
        torch.empty(TOO_MUCH)
    with pytest.raises(ValueError, match=r"^other$"), evaluating(9, 4):
        raise ValueError("other")
