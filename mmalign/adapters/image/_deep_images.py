"""Latents to images and back through a deep-compression autoencoder (Chen et al., 2410.10733), as Sana uses it.

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x / scaling_factor` |
| x, what the generator is trained on | `z * scaling_factor` |

It is deterministic: its encoder states one latent, not a distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from mmalign.adapters.loading.decode import by_rows
from mmalign.adapters.loading.options import full_precision
from mmalign.core.errors import MediaError
from mmalign.core.gradient import without_gradient
from mmalign.core.tensor import Tensor


@dataclass
class DeepImages:
    """An `AutoencoderDC` between latents and images, differentiable and in float32."""

    vae: Any
    rows: int = 8
    recompute: bool = False

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], float32, not clamped, with gradient to `x`."""
        with full_precision(x.device):
            return by_rows(self._picture, x.float(), self.rows, self.recompute)

    @without_gradient
    def latents(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The latents of images in [0, 1], scaled for the generator, float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise MediaError(f"images must be (B, 3, H, W) in [0, 1]; got {tuple(images.shape)}.")
        images = images.to(next(self.vae.parameters()).device, torch.float32)
        with full_precision(images.device):
            return by_rows(self._latent, images, self.rows)

    def _picture(self, x: Tensor) -> Tensor:
        return self.vae.decode(x / self.vae.config.scaling_factor).sample / 2 + 0.5  # type: ignore[no-any-return]

    def _latent(self, images: Tensor) -> Tensor:
        return self.vae.encode(images * 2 - 1).latent * self.vae.config.scaling_factor  # type: ignore[no-any-return]
