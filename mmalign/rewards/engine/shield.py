"""What a reward is shown of a rollout is not its to change: training goes on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmalign.core.errors import ScoreError
from mmalign.core.types import Audio, Rollout

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Shield:
    """Gives copies of what is small (groups, masks, facts about prompts), and watches what is large.

    Pictures, sounds and latents are looked at before and after: their sum of bits, and PyTorch's count of writes.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._large = list(_tensors((rollout.output, rollout.trajectory)))
        self._media = [value for prompt in rollout.prompts for value in _tensors(prompt.media)]
        self._before = [_digest(tensor) for tensor in self._large], [_writes(tensor) for tensor in self._media]
        self.shown = replace(
            rollout,
            prompts=[replace(prompt, meta=_copy(prompt.meta)) for prompt in rollout.prompts],
            output=list(rollout.output) if isinstance(rollout.output, list) else rollout.output,
            group=rollout.group.clone(),
            trajectory=dict(rollout.trajectory),
            **{
                name: None if (held := getattr(rollout, name)) is None else held.clone()
                for name in ("step_logp", "mask", "truncated")
            },
        )

    def check(self, name: str) -> None:
        """Raise ScoreError if the reward called `name` wrote into outputs, latents or what prompts are about."""
        after = [_digest(tensor) for tensor in self._large], [_writes(tensor) for tensor in self._media]
        if after != self._before:
            raise ScoreError(
                f"reward '{name}' wrote into what it was given to judge, and training goes on with it; let it work on "
                "a copy (output.clone())."
            )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Audio):
        yield value.samples
    elif isinstance(value, dict | tuple):  # media that are decoded at each look are nobody's to spoil
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _writes(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _digest(tensor: Tensor) -> tuple[int, int]:
    flat = tensor.detach()
    kind = _BITS.get(flat.element_size())
    return _writes(tensor), 0 if kind is None or flat.is_complex() else int(flat.view(kind).sum(dtype=torch.int64))


def _copy(value: Any) -> Any:
    """Containers are made anew, what they hold stays."""
    if isinstance(value, Mapping):
        return {key: _copy(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_copy(held) for held in value]
    return value
