"""A deterministic sampler written from the levels alone: Euler for flows, DDIM with eta 0 for diffusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.core.types import Prompt


@torch.no_grad()
def sample(adapter: Any, texts: Sequence[str], x: Tensor, steps: int, guidance_scale: float = 1.0) -> Tensor:
    """The final latents from the starting latents `x` (B, ...); guidance in one doubled batch, negatives first."""
    condition, levels, rows = adapter.encode([Prompt(text) for text in texts]), adapter.schedule(steps), len(texts)
    guided = guidance_scale > 1
    if guided:
        negative = adapter.unconditional(rows)
        condition = {name: torch.cat([negative[name], value]) for name, value in condition.items()}
    for i in range(steps):
        both = torch.cat([x, x]) if guided else x
        said = adapter.predict(both, levels.times[i].expand(len(both)), condition)
        if guided:
            unconditional, conditional = said.chunk(2)
            said = adapter.guide(conditional, unconditional, guidance_scale)
        x = step(adapter.prediction, x, said, levels[i : i + 2])
    return x


def step(prediction: str, x: Tensor, said: Tensor, levels: Any) -> Tensor:
    """From level 0 to level 1 of `levels`."""
    (a, a_next), (s, s_next) = levels.alpha.tolist(), levels.sigma.tolist()
    if prediction == "flow":
        return x + (s_next - s) * said
    x0 = (x - s * said) / a if prediction == "epsilon" else a * x - s * said
    noise = said if prediction == "epsilon" else a * said + s * x
    return a_next * x0 + s_next * noise
