"""Latents as the token sequence FLUX.1 and Qwen-Image work on: each 2 × 2 patch is a token of 4 C numbers.

A token lists channel first, then row, then column within its patch; tokens run row by row. Pure reshapes.
"""

from __future__ import annotations

from jaxtyping import Float

from mmalign.adapters.loading.described import Configs, Frame
from mmalign.core.tensor import Tensor

SIDE = 128  # latents a side, both pipelines' default


def packed_frame(configs: Configs, scale: int) -> Frame:
    """A token holds 2 x 2 latents, so the network takes four times their channels and sides are even."""
    return Frame(configs("transformer")["in_channels"] // 4, (SIDE * scale,) * 2, 2 * scale)


def pack(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N D"]:
    """(B, C, h, w) → (B, h/2 · w/2, 4 C); h and w even."""
    patches = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, h/2, 2, w/2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2)


def unpack(tokens: Float[Tensor, "B N D"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    """The inverse of `pack`; `height` and `width` of the latents."""
    patches = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (height // 2, width // 2))  # (B, h/2, w/2, C, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)
