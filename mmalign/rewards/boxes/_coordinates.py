"""Boxes from any coordinate convention into one: xyxy, in pixels where the picture's size is known, else in [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.rewards.columns import plain_data

Frame = Literal["pixel", "unit", "per_mille"]
Layout = Literal["xyxy", "xywh", "cxcywh", "yxyx"]
Size = tuple[float, float]  # width, height

_STEPS = {"unit": 1.0, "per_mille": 1000.0}


def corners(values: Float[Tensor, "N 4"], layout: Layout) -> Float[Tensor, "N 4"]:
    """Boxes as (x1, y1, x2, y2); neither swapped nor clipped."""
    a, b, c, d = values.unbind(1)
    layouts = {
        "xyxy": (a, b, c, d),
        "yxyx": (b, a, d, c),
        "xywh": (a, b, a + c, b + d),
        "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    }[layout]
    return torch.stack(layouts, 1)


def extent(frame: Frame, size: Size | None) -> Size | None:
    """Width and height of the whole frame in its own units; None for pixels of a picture of unknown size."""
    return size if frame == "pixel" else (_STEPS[frame], _STEPS[frame])


def moved(boxes: Float[Tensor, "N 4"], source: Size, target: Size) -> Float[Tensor, "N 4"]:
    """Boxes of a frame of extent `source` in one of extent `target`."""
    scale = torch.tensor([t / s for s, t in zip(source, target, strict=True)], dtype=boxes.dtype)
    return boxes * scale.repeat(2)


def size_in(value: object, column: str) -> Size | None:
    """[width, height] from a column, also as JSON text; ValueError if it is something else."""
    if value is None:
        return None
    size = plain_data(value, column)
    numbers = isinstance(size, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in size
    )
    if not numbers or len(size) != 2 or not all(0 < v < float("inf") for v in size):
        raise ValueError(f"Prompt.meta['{column}'] is [width, height], both positive; found {str(value)[:60]!r}")
    return float(size[0]), float(size[1])
