"""Bases of real shapes in fewer bits, bf16 beside a LoRA: ratio 1 at the start, an update, and the memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.training.checks import check_start
from mmalign.training.loop import training_loop
from tests.gpu.problem import PROMPTS, grpo_session, loaded, speaking, text_session

pytestmark = pytest.mark.gpu
BITS = ["none", "nf4", "int8", "fp8"]


@pytest.mark.parametrize("bits", BITS)
def test_a_language_model_starts_at_ratio_one_and_trains(
    bits: str, real_size: Callable[[str], Path], report: dict[str, Any]
) -> None:
    adapter, policy, prompts = speaking("lm_0_5b", real_size("lm_0_5b"), "bf16", quantize=bits)
    objective, session = text_session(adapter, prompts)
    weights = torch.cuda.memory_allocated()
    with torch.no_grad():
        experience = objective.collect(policy, prompts, session.streams["rollout"])
    check_start(policy, experience, 8, fresh=True)
    torch.cuda.reset_peak_memory_stats()
    training_loop(policy, objective, session)
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"]))
    report[f"lm_0_5b/bf16/quantize_{bits}"] = _memory(weights)


@pytest.mark.parametrize("bits", BITS)
def test_a_generator_starts_at_ratio_one_and_trains(
    bits: str, real_size: Callable[[str], Path], report: dict[str, Any]
) -> None:
    adapter, policy = loaded("sd3", real_size("sd3"), "bf16", quantize=bits)
    objective, session = grpo_session(adapter)
    weights = torch.cuda.memory_allocated()
    with torch.no_grad():
        experience = objective.collect(policy, PROMPTS[:2], session.streams["rollout"])
    check_start(policy, experience, 4, fresh=True)
    torch.cuda.reset_peak_memory_stats()
    training_loop(policy, objective, session)
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"]))
    report[f"sd3/bf16/quantize_{bits}"] = _memory(weights)


def _memory(weights: int) -> dict[str, float]:
    return {
        "loaded_gib": round(weights / 2**30, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }
