"""Prompts for any family, and a reward for whatever it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mmalign.adapters.language._media_text import MediaTextAdapter
from mmalign.core.types import Prompt, Scores
from tests.adapters.language.media import picture, sound


class Rising:
    """A reward by the place in the batch."""

    modalities = frozenset({"text", "image", "audio"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Any) -> Scores:
        value = torch.arange(len(rollout)) / len(rollout)
        return Scores(value=value, status=torch.zeros(len(rollout), dtype=torch.int8))


def asked_of(adapter: Any) -> list[Prompt]:
    """Two prompts, each with a medium of its own where the family reads media."""
    texts = ("a red circle", "two dogs")
    if not isinstance(adapter, MediaTextAdapter):
        return [Prompt(text) for text in texts]
    kind = adapter.sense.kind
    media: dict[str, Callable[[int], Any]] = {"image": picture, "audio": sound}
    return [Prompt(text, {kind: media[kind](seed)}) for seed, text in enumerate(texts)]
