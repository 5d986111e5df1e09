"""Seeded media for prompts: pictures and sounds that differ by their seed."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign.core.types import Audio
from tests.adapters.language.tiny_alm import RATE


def picture(seed: int, height: int = 16, width: int = 16) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def sound(seed: int, seconds: float = 0.4, rate: int = RATE, channels: int = 1) -> Audio:
    """One row: a tone whose pitch rises with the seed, and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate)) / rate
    wave = 0.4 * torch.sin(6.28 * 300 * (1 + seed) * time) + 0.05 * torch.randn(channels, len(time), generator=rng)
    return Audio(wave[None], rate)
