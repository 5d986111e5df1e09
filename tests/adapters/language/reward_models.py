"""Reward models to test with: questions, answers, and weights after an update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmalign.adapters import load_adapter
from mmalign.core.types import Prompt

ASKED = [Prompt("a b c"), Prompt("red"), Prompt("two dogs")]


SAID = ["good", "bad cube asleep", "a"]


def reward_model(folder: Path | str, **options: Any) -> Any:
    return load_adapter("reward_model", **{"model": str(folder), "device": "cpu", "lora": {"rank": 2}, **options})


def scores(adapter: Any, asked: Any = ASKED, said: Any = SAID) -> torch.Tensor:
    with torch.no_grad():
        return adapter.score(adapter.read(asked, said))


def moved(adapter: Any) -> Any:
    """After an update."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight += 0.1 * torch.randn(weight.shape, generator=rng)
    return adapter
