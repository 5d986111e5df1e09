"""Latents to images and back through a video autoencoder that sees an image as one frame (Qwen-Image, Wan 2.1).

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x * latents_std + latents_mean`, per channel |
| x, what the generator is trained on | `(z - latents_mean) / latents_std` |

The class's own `decode` clamps to [-1, 1], which would cut the gradient of every saturated pixel; the decoder is called
without the clamp, and without its frame-to-frame cache, which does nothing for a single frame.
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
class FrameImages:
    """An `AutoencoderKLQwenImage` between latents and images, differentiable and in float32."""

    vae: Any
    rows: int = 8
    recompute: bool = False

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], float32, not clamped, with gradient to `x`."""
        with full_precision(x.device):
            return by_rows(self._picture, x.float(), self.rows, self.recompute)

    @without_gradient
    def latents(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mode of the encoder's distribution for images in [0, 1], scaled for the generator, float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise MediaError(f"images must be (B, 3, H, W) in [0, 1]; got {tuple(images.shape)}.")
        images = images.to(next(self.vae.parameters()).device, torch.float32)
        with full_precision(images.device):
            return by_rows(self._latent, images, self.rows)

    def _picture(self, x: Tensor) -> Tensor:
        z = x[:, :, None] * self._channels("latents_std", x) + self._channels("latents_mean", x)
        frames = self.vae.decoder(self.vae.post_quant_conv(z))
        return frames[:, :, 0] / 2 + 0.5  # type: ignore[no-any-return]

    def _latent(self, images: Tensor) -> Tensor:
        z = self.vae.encode(images[:, :, None] * 2 - 1).latent_dist.mode()
        return ((z - self._channels("latents_mean", z)) / self._channels("latents_std", z))[:, :, 0]  # type: ignore[no-any-return]

    def _channels(self, name: str, like: Tensor) -> Tensor:
        stated = getattr(self.vae.config, name)
        return torch.tensor(stated, device=like.device, dtype=torch.float32).view(1, -1, 1, 1, 1)
