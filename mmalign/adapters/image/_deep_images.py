"""Latents to images and back through a deep-compression autoencoder (Chen et al., 2410.10733), as Sana uses it.

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x / scaling_factor` |
| x, what the generator is trained on | `z * scaling_factor` |

It is deterministic: its encoder states one latent, not a distribution.
"""

from __future__ import annotations

from mmalign.adapters.loading.decode import LatentImages
from mmalign.core.tensor import Tensor


class DeepImages(LatentImages):
    """An `AutoencoderDC` between latents and images, differentiable and in float32."""

    def _picture(self, x: Tensor) -> Tensor:
        return self.vae.decode(x / self.vae.config.scaling_factor).sample / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        return self.vae.encode(images * 2 - 1).latent * self.vae.config.scaling_factor
