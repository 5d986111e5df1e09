"""Language models of real shapes, random weights, bf16 and LoRA: ratio 1, tokens a second, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.training.checks import check_start, tolerance
from mmalign.training.loop import training_loop
from tests.gpu.problem import speaking, text_session
from tests.gpu.real_texts import WRITERS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", list(WRITERS))
def test_ratio_one_throughput_and_memory(name: str, real_size: Callable[[str], Path], report: dict[str, Any]) -> None:
    adapter, policy, prompts = speaking(name, real_size(name), "bf16")
    objective, session = text_session(adapter, prompts)
    with torch.no_grad():
        experience = objective.collect(policy, prompts, session.streams["rollout"])
        now = policy.step_dist(experience.rollout[:8]).log_prob
    check_start(policy, experience, 8, fresh=True)
    gap = float((now - experience.old.log_prob[:8]).abs().max())
    report[f"{name}/bf16/replay_gap_nats"] = {"gap": gap, "allowed": tolerance(policy), "event_size": 1}
    rows = [p for p in prompts for _ in range(8)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    rollout = policy.sample(rows, torch.Generator().manual_seed(1))
    torch.cuda.synchronize()
    written, sampling = int(rollout.mask.sum()), time.perf_counter() - start
    training_loop(policy, objective, session)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    session.trainer.steps = 3
    training_loop(policy, objective, session)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 2
    report[f"{name}/bf16/grpo_step"] = {
        "rows": len(rows),
        "new_tokens": policy.max_new_tokens,
        "sampled_tokens_per_second": round(written / sampling, 1),
        "seconds": round(seconds, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"]))
