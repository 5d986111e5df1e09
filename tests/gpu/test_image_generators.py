"""Every image family at its real widths, random weights: correctness in bf16 and fp32, memory, throughput."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.training.checks import check_start, tolerance
from mmalign.training.loop import accumulate, training_loop
from tests.gpu.problem import PROMPTS, grpo_session, loaded
from tests.gpu.real_sizes import WRITERS

pytestmark = pytest.mark.gpu
FAMILIES = tuple(WRITERS)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", FAMILIES)
def test_ratio_one_kl_zero_and_a_finite_step(
    name: str, dtype: str, real_size: Callable[[str], Path], report: dict[str, Any]
) -> None:
    adapter, policy = loaded(name, real_size(name), dtype)
    objective, session = grpo_session(adapter)
    with torch.no_grad():
        experience = objective.collect(policy, PROMPTS[:2], session.streams["rollout"])
        now = policy.step_dist(experience.rollout).log_prob
    check_start(policy, experience, 4, fresh=True)
    gap = float((now - experience.old.log_prob).abs().max())
    report[f"{name}/{dtype}/replay_gap_nats"] = {
        "gap": gap,
        "allowed": tolerance(policy),
        "event_size": policy.event_size,
    }
    before = [p.detach().clone() for p in adapter.trainable().values()]
    training_loop(policy, objective, session)
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"]))
    assert any(not torch.equal(a, b) for a, b in zip(before, adapter.trainable().values(), strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_update_memory_is_flat_in_the_trained_steps(
    name: str, real_size: Callable[[str], Path], report: dict[str, Any]
) -> None:
    from dataclasses import replace

    adapter, policy = loaded(name, real_size(name), "bf16")
    peaks = {}
    for steps in (3, 9):
        policy.num_inference_steps = steps
        objective, session = grpo_session(adapter)
        with torch.no_grad():
            experience = objective.collect(policy, PROMPTS[:1], session.streams["rollout"])
        weighted = replace(experience, weight=objective.weigh(experience.mask, session.mean))
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        accumulate(policy, objective, weighted, session)
        peaks[steps] = (torch.cuda.max_memory_allocated() - start) / 2**30
    report[f"{name}/bf16/update_peak_gib"] = peaks
    assert peaks[9] < 1.1 * peaks[3]


@pytest.mark.parametrize("name", FAMILIES)
def test_throughput(name: str, real_size: Callable[[str], Path], report: dict[str, Any]) -> None:
    adapter, policy = loaded(name, real_size(name), "bf16")
    objective, session = grpo_session(adapter)
    training_loop(policy, objective, session)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    session.trainer.steps = 3
    training_loop(policy, objective, session)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 2
    report[f"{name}/bf16/grpo_step"] = {
        "images": 8,
        "denoising_steps": policy.num_inference_steps,
        "seconds": round(seconds, 3),
        "images_per_second": round(8 / seconds, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }
    assert seconds > 0
