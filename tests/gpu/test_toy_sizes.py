"""What the GPU checks run on, run at toy widths on the CPU: the same writers, loaders and training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.training.loop import training_loop
from tests.gpu import real_sounds, real_texts
from tests.gpu.problem import grpo_session, loaded, sound_session, sounding, speaking, text_session
from tests.gpu.real_sizes import TOY, WRITERS


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_family_writes_loads_and_takes_a_step(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS[name](tmp_path / name, TOY)
    adapter, policy = loaded(name, folder, "fp32", device="cpu", resolution=32)
    objective, session = grpo_session(adapter)
    before = [p.detach().clone() for p in adapter.trainable().values()]
    training_loop(policy, objective, session)  # its start-up checks prove ratio 1 and KL 0
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"])) and session.latest["update/skipped"] == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, adapter.trainable().values(), strict=True))


def _moves(policy: Any, objective: Any, session: Any, adapter: Any) -> None:
    before = [p.detach().clone() for p in adapter.trainable().values()]
    training_loop(policy, objective, session)
    assert torch.isfinite(torch.tensor(session.latest["grad/norm"])) and session.latest["update/skipped"] == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, adapter.trainable().values(), strict=True))


@pytest.mark.parametrize("name", list(real_sounds.WRITERS))
def test_every_generator_of_sound_takes_both_steps(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = real_sounds.WRITERS[name](tmp_path / name, TOY)
    for kind, eta in (("grpo", 1.0), ("dragon", 0.0)):
        adapter, policy = sounding(name, folder, "fp32", eta, 0.1, device="cpu")
        _moves(policy, *sound_session(adapter, kind), adapter)


@pytest.mark.parametrize("name", list(real_texts.WRITERS))
def test_every_language_model_takes_a_step(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = real_texts.WRITERS[name](tmp_path / name, TOY)
    adapter, policy, prompts = speaking(name, folder, "fp32", device="cpu")
    _moves(policy, *text_session(adapter, prompts), adapter)
