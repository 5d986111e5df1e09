"""The row by which a server sees whether a reward works: one of the user's, or a small one that is made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mmalign.core.errors import DataError
from mmalign.core.types import Audio, Output, Prompt, Rollout
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.run.rows import read_output_rows
from mmalign.run.score import read_rollouts

__all__ = ["given_probe", "small_probe"]

_SCENE = "a red circle"
_SHARE = 0.1  # of full scale: a sound that is neither silent nor cut off


def given_probe(file: Path) -> Rollout:
    """The first row of a file of `mmalign score`. Raises DataError where its output cannot be read."""
    row = read_output_rows(file)[0]
    unread: dict[int, str] = {}
    for _, rollout in read_rollouts([row], [0], row.kind, file if file.is_dir() else file.parent, unread):
        return rollout
    raise DataError(unread[0])


def small_probe(reward: object) -> tuple[Rollout | None, str]:
    """A picture of 64 x 64, a second of sound, or a text, whichever the reward judges; or None, and why there is none.

    Its prompt says what the picture shows. A reward that needs columns is not tried by it: they would be invented.
    """
    modalities = reward.modalities  # type: ignore[attr-defined]
    kind = next(kind for kind in _OUTPUTS if kind in modalities)
    if needs := RewardTraits.of(reward).needs:
        return None, f"needs the columns {', '.join(needs)}; name a row that has them by --probe ROWS.jsonl"
    prompt = "an electric piano plays" if kind == "audio" else _SCENE
    return Rollout.of([Prompt(prompt)], _OUTPUTS[kind]()), ""


def _picture() -> Output:
    from mmalign.miniworld.grammar import parse, sample_scene
    from mmalign.miniworld.scenes import render

    rng = np.random.default_rng(0)
    return torch.from_numpy(render(sample_scene(parse(_SCENE), rng), rng)).float()[None].clamp(0, 1)


def _sound() -> Output:
    rate = 16000
    time = torch.arange(rate) / rate
    noise = torch.randn(rate, generator=torch.Generator().manual_seed(0))
    return Audio((_SHARE * (torch.sin(2 * torch.pi * 440 * time) + 0.1 * noise))[None, None], rate)


def _text() -> Output:
    return [_SCENE]


_OUTPUTS: dict[str, Callable[[], Output]] = {"image": _picture, "audio": _sound, "text": _text}
