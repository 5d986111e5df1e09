"""Threads that load at once get whole models; one that fails spoils nothing."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.adapters import load_adapter
from mmalign.core.errors import CheckpointError
from mmalign.core.files import assets_root
from mmalign.loading.exclusive import loaded_once
from tests.adapters import tiny
from tests.adapters.language import tiny_lm
from tests.loading.damage import without_one


def test_eight_threads_load_whole_and_damaged_models_at_once(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder, lm = tiny.write_tiny_sd(tmp_path / "sd"), tiny_lm.write_tiny_lm(tmp_path / "lm")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    without_one(damaged / "unet")

    def load(i: int) -> Any:
        if i % 4 == 3:
            with pytest.raises(CheckpointError, match="are missing, the first is"):
                load_adapter("sd", model=str(damaged), device="cpu")
            return None
        name, place = ("causal_lm", lm) if i % 4 == 2 else ("sd", folder)
        return load_adapter(name, model=str(place), device="cpu", lora={"rank": 2})

    with ThreadPoolExecutor(8) as threads:
        found = [adapter for adapter in threads.map(load, range(16)) if adapter is not None]
    assert len(found) == 12
    for adapter in found:
        assert not any(parameter.is_meta for parameter in adapter.module.parameters())
        assert all(parameter.isfinite().all() for parameter in adapter.module.parameters())


def test_first_calls_of_eight_threads_share_one_clap() -> None:
    rewards = [mmalign.load_reward("clap", checkpoint=str(assets_root() / "tunes_clap")) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        towers = list(threads.map(lambda reward: reward.towers, rewards))
    assert all(one is towers[0] for one in towers)


def test_a_model_is_loaded_once_and_a_failure_again() -> None:
    made: list[int] = []

    @loaded_once(2)
    def load(name: int) -> object:
        made.append(name)
        time.sleep(0.02)
        if name < 0:
            raise CheckpointError("no such model")
        return object()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(load, [1] * 8))) == 1
    assert made == [1]
    for _ in range(2):
        with pytest.raises(CheckpointError):
            load(-1)
    assert made == [1, -1, -1]
    first = load(1)
    assert load(2) and load(3) and load(1) is not first  # two are kept
