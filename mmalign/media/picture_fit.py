"""Pictures of any size brought to one: scaled with antialiasing, then cropped at the middle or laid on a ground.

| fit | what becomes of a picture of another shape |
|---|---|
| `cover` | it fills the size; what hangs over at two sides is cropped, half at each |
| `contain` | it is whole; two bands of the ground fill the size |
| `stretch` | it is whole and fills the size; its proportions change |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Placement

__all__ = ["Fit", "bucket_of", "bucket_sizes", "fitted", "ground_of", "placement_of"]

Fit = Literal["cover", "contain", "stretch"]
Size = tuple[int, int]  # (height, width) in pixels


def placement_of(original: Size, size: Size, fit: Fit) -> Placement:
    """Where a picture of `original` size lies in a target of `size`."""
    if fit == "stretch":
        return Placement(original, size, (0, 0), size)
    ratios = [want / have for have, want in zip(original, size, strict=True)]
    ratio = max(ratios) if fit == "cover" else min(ratios)
    scaled = _scaled(original, size, ratio, fit)
    corner = (_half(scaled[0] - size[0]), _half(scaled[1] - size[1]))
    return Placement(original, scaled, corner, size)


def _scaled(original: Size, size: Size, ratio: float, fit: Fit) -> Size:
    """Both sides times `ratio`, to the nearest pixel, at least the target's (`cover`) or at most it (`contain`)."""
    sides = [max(1, round(side * ratio)) for side in original]
    bound = max if fit == "cover" else min
    height, width = (bound(side, want) for side, want in zip(sides, size, strict=True))
    return height, width


def _half(over: int) -> int:
    """Half of what hangs over (or is missing, negative), rounded toward zero."""
    return int(over / 2)


def fitted(
    picture: Float[Tensor, "3 H W"], size: Size, fit: Fit, ground: Sequence[float] = (1.0, 1.0, 1.0)
) -> Float[Tensor, "3 h w"]:
    """`picture`, in [0, 1], at `size`; `ground` (red, green, blue in [0, 1]) fills the bands of `contain`.

    Scaling is bicubic with antialiasing, as Pillow's, and its overshoot clamped. A picture of the size comes back as
    it is.
    """
    place = placement_of((picture.shape[1], picture.shape[2]), size, fit)
    if place.scaled != place.original:
        picture = torch.nn.functional.interpolate(
            picture[None], size=list(place.scaled), mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    top, left = (max(0, side) for side in place.corner)
    picture = picture[:, top : top + size[0], left : left + size[1]]
    if picture.shape[1:] == size:
        return picture.contiguous()
    whole = torch.tensor(list(ground), dtype=picture.dtype)[:, None, None].repeat(1, *size)
    above, before = (max(0, -side) for side in place.corner)
    whole[:, above : above + picture.shape[1], before : before + picture.shape[2]] = picture
    return whole


def ground_of(colour: str) -> tuple[float, float, float]:
    """A colour by name or as #rrggbb, in [0, 1].

    Raises:
        ConfigError: it is none.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(colour)[:3]
    except (ValueError, AttributeError):
        raise ConfigError(f"ground: {colour!r} is no colour; write white, black, … or #rrggbb.") from None
    return red / 255, green / 255, blue / 255


def bucket_sizes(size: Size, multiple: int, most: float = 2.0) -> list[Size]:
    """Sizes of about the area of `size` and of several shapes, sides multiples of `multiple`; `size` is one of them.

    The shapes go from `most` times as wide as high to `most` times as high as wide: for each height in steps of
    `multiple` the width that comes nearest to the area without going beyond it, as NovelAI's aspect ratio bucketing
    has them (2022, https://github.com/NovelAI/novelai-aspect-ratio-bucketing).
    """
    area, lowest, highest = size[0] * size[1], 1 / most, most
    sizes = {size}
    for height in range(multiple, math.isqrt(int(area * most)) + multiple, multiple):
        width = area // height // multiple * multiple
        if width and lowest <= width / height <= highest:
            sizes.add((height, width))
    return sorted(sizes, key=lambda s: s[1] / s[0])


def bucket_of(original: Size, sizes: Sequence[Size]) -> Size:
    """The one of `sizes` whose shape is nearest to that of `original`, by the logarithm of width over height.

    Of two of one shape, the larger.
    """
    aspect = math.log(original[1] / original[0])
    return min(sizes, key=lambda s: (round(abs(math.log(s[1] / s[0]) - aspect), 9), -s[0] * s[1]))
