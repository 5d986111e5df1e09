"""What the GPU checks run on, run at toy widths on the CPU: the same writers, loaders and training step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmalign.training.loop import train
from tests.gpu.problem import grpo_session, loaded
from tests.gpu.real_sizes import TOY, WRITERS


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_family_writes_loads_and_takes_a_step(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS[name](tmp_path / name, TOY)
    adapter, policy = loaded(name, folder, "fp32", device="cpu", resolution=32)
    objective, session = grpo_session(adapter)
    before = [p.detach().clone() for p in adapter.trainable().values()]
    train(policy, objective, session)  # its start-up checks prove ratio 1 and KL 0
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"])) and session.latest["update/skipped"] == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, adapter.trainable().values(), strict=True))
