"""Latents to images and back through a video autoencoder that sees an image as one frame (Qwen-Image, Wan 2.1).

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x * latents_std + latents_mean`, per channel |
| x, what the generator is trained on | `(z - latents_mean) / latents_std` |

The class's own `decode` clamps to [-1, 1], which would cut the gradient of every saturated pixel; the decoder is called
without the clamp, and without its frame-to-frame cache, which does nothing for a single frame.
"""

from __future__ import annotations

import torch

from mmalign.adapters.loading.decode import LatentImages
from mmalign.core.tensor import Tensor


class FrameImages(LatentImages):
    """An `AutoencoderKLQwenImage` between latents and images, differentiable and in float32."""

    def _picture(self, x: Tensor) -> Tensor:
        z = x[:, :, None] * self._channels("latents_std", x) + self._channels("latents_mean", x)
        frames = self.vae.decoder(self.vae.post_quant_conv(z))
        return frames[:, :, 0] / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        z = self.vae.encode(images[:, :, None] * 2 - 1).latent_dist.mode()
        return ((z - self._channels("latents_mean", z)) / self._channels("latents_std", z))[:, :, 0]

    def _channels(self, name: str, like: Tensor) -> Tensor:
        stated = getattr(self.vae.config, name)
        return torch.tensor(stated, device=like.device, dtype=torch.float32).view(1, -1, 1, 1, 1)
