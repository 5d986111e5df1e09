"""Completions of four prompts, and what a model says of them by itself and step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign.core.types import Prompt

ROWS = torch.tensor([0, 2, 1, 3, 2, 0])


TOKENS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0], [10, 11, 12, 13], [6, 3, 0, 0], [7, 7, 7, 7], [14, 1, 0, 0]])


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()


def judged(adapter: Any, prompts: list[Prompt], rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits before every step, (B, T, V), 0 where masked."""
    features = adapter.features(adapter.encode(prompts), rows, tokens, mask)
    logits = adapter.logits(features.flatten(0, 1)).unflatten(0, tokens.shape)
    return logits.where(mask[..., None], 0.0)


@torch.no_grad()
def plain(adapter: Any, prompts: list[Prompt], rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The same of the model itself, one row at a time, with what the processor gives, no padding and no cache."""
    model, out = adapter.network.model, []
    for row, said, live in zip(rows.tolist(), tokens, mask, strict=True):
        given = adapter.encode([prompts[row]])[0]
        ids, said = given["input_ids"], said[live]
        more = {name: value for name, value in given.items() if value.dim() > 1}
        for name, value in given.items():
            if value.dim() == 1 and name != "input_ids":
                more[name] = torch.cat([value, torch.zeros_like(said)])[None]
        logits = model(input_ids=torch.cat([ids, said])[None], use_cache=False, **more).logits[0]
        steps = logits[len(ids) - 1 : -1]
        out.append(torch.nn.functional.pad(steps, (0, 0, 0, len(live) - len(said))))
    return torch.stack(out)
