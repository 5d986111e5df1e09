"""Generators of sound at real widths, random weights: GRPO and DRAGON steps, memory, seconds of sound a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.training.checks import check_start, tolerance
from mmalign.training.loop import training_loop
from tests.gpu.problem import PROMPTS, sound_session, sounding
from tests.gpu.real_sounds import WRITERS

pytestmark = pytest.mark.gpu
SECONDS = 10.0


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", list(WRITERS))
def test_ratio_one_and_kl_zero(name: str, dtype: str, real_size: Callable[[str], Path], report: dict[str, Any]) -> None:
    adapter, policy = sounding(name, real_size(name), dtype, 1.0, SECONDS)
    objective, session = sound_session(adapter, "grpo")
    with torch.no_grad():
        experience = objective.collect(policy, PROMPTS[:2], session.streams["rollout"])
        now = policy.step_dist(experience.rollout).log_prob
    check_start(policy, experience, 4, fresh=True)
    gap = float((now - experience.old.log_prob).abs().max())
    allowed = {"allowed": tolerance(policy), "event_size": policy.event_size}
    report[f"{name}/{dtype}/replay_gap_nats"] = {"gap": gap, **allowed}


@pytest.mark.parametrize(("kind", "eta"), [("grpo", 1.0), ("dragon", 0.0)])
@pytest.mark.parametrize("name", list(WRITERS))
def test_throughput_of_a_step(
    name: str, kind: str, eta: float, real_size: Callable[[str], Path], report: dict[str, Any]
) -> None:
    adapter, policy = sounding(name, real_size(name), "bf16", eta, SECONDS)
    objective, session = sound_session(adapter, kind)
    before = [p.detach().clone() for p in adapter.trainable().values()]
    training_loop(policy, objective, session)
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"]))
    assert any(not torch.equal(a, b) for a, b in zip(before, adapter.trainable().values(), strict=True))
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    session.trainer.steps = 3
    training_loop(policy, objective, session)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 2
    report[f"{name}/bf16/{kind}_step"] = {
        "sounds": 8,
        "seconds_each": SECONDS,
        "denoising_steps": policy.num_inference_steps,
        "seconds": round(seconds, 3),
        "seconds_of_sound_per_second": round(8 * SECONDS / seconds, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }
