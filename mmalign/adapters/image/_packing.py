"""Latents as the token sequence FLUX.1 and Qwen-Image work on: each 2 × 2 patch is a token of 4 C numbers.

A token lists channel first, then row, then column within its patch; tokens run row by row. Pure reshapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float

from mmalign.adapters.bases.formats import Configs, Frame
from mmalign.adapters.bases.image_adapter import ImageAdapter
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.core.errors import ConfigError
from mmalign.core.options import AtLeastOne
from mmalign.core.tensor import Tensor

SIDE = 128  # latents a side, both pipelines' default


@dataclass
class PackedImages(FlowLevels, ImageAdapter):
    """A flow over tokens of 2 x 2 latents; latents are (B, C, h, w), packed where the network is called.

    Args:
        max_sequence_length: tokens of a prompt, padded to; what is over is cut with a warning.
    """

    max_sequence_length: AtLeastOne = 512

    longest: ClassVar[int]  # tokens of a prompt that the pipeline reads

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_sequence_length > self.longest:
            raise ConfigError(
                f"max_sequence_length: {self.max_sequence_length} is more than {self.longest}, the most that "
                f"{self.pipeline_name} accepts."
            )

    def image_tokens(self) -> int:
        """Count the tokens of one image."""
        return (self.latent_shape[1] // 2) * (self.latent_shape[2] // 2)

    def sigmas(self, num_inference_steps: int) -> list[float]:
        """Return K levels, evenly spaced from 1 down."""
        return [1 - i / num_inference_steps for i in range(num_inference_steps)]


def packed_frame(configs: Configs, scale: int) -> Frame:
    """Return the format of images whose tokens hold 2 x 2 latents: a quarter of the network's channels, even sides."""
    return Frame(configs("transformer")["in_channels"] // 4, (SIDE * scale,) * 2, 2 * scale)


def pack(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N D"]:
    """Pack latents (B, C, h, w), h and w even, into tokens (B, h/2 · w/2, 4 C)."""
    patches = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, h/2, 2, w/2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2)


def unpack(tokens: Float[Tensor, "B N D"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    """Undo `pack`: tokens (B, N, 4 C) to latents (B, C, height, width)."""
    patches = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (height // 2, width // 2))  # (B, h/2, w/2, C, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)
