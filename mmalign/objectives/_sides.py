"""What several outputs of each row score, or what features they have, in as few forwards as their sizes allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Rollout, join


def by_side(read: Callable[[Rollout], Tensor], sides: Sequence[Rollout]) -> list[Tensor]:
    """`read` of each of several rollouts of B rows, with gradient; in one forward where it can be."""
    return [one for (one,) in several_by_side(lambda side: (read(side),), sides)]


def several_by_side(
    read: Callable[[Rollout], tuple[Tensor, ...]], sides: Sequence[Rollout]
) -> list[tuple[Tensor, ...]]:
    """What `read` says of each of several rollouts of B rows, with gradient.

    It is one forward, or one for each side where images or sounds differ in size, or rows hold tokens.
    """
    if any(side.trajectory for side in sides) or len({size_of(side.output) for side in sides}) > 1:
        return [read(side) for side in sides]
    parts = [value.chunk(len(sides)) for value in read(join(list(sides)))]
    return list(zip(*parts, strict=True))


def size_of(output: object) -> tuple[int, ...]:
    """The shape of one output; () for texts."""
    media = output.samples if isinstance(output, Audio) else output
    return tuple(media.shape[1:]) if isinstance(media, torch.Tensor) else ()


def features_missing(setting: Setting, what: str) -> Iterator[str]:
    """A sentence where the run's policy scores by an adapter that tells no features; `what` asks for them."""
    policy, adapter = setting.policy, setting.adapter
    if policy is None or adapter is None or not hasattr(policy, "scored_features"):
        return
    if not hasattr(adapter, "scored_features"):
        yield f"{what}: adapter {adapter.__name__} scores outputs and tells no features (`scored_features`)."


__all__ = ["by_side", "features_missing", "several_by_side", "size_of"]
