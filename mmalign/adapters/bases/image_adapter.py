"""Adapters around a diffusers pipeline that makes images, and the autoencoder between latents and images.

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x / scaling_factor + shift_factor` |
| x, what the generator is trained on | `(z - shift_factor) * scaling_factor` |

Some autoencoders state a mean and standard deviation per channel instead of a shift: z = x std / scaling_factor + mean.
Float32 because several published autoencoders overflow in float16, and because rewards see every rounding.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from mmalign.adapters.bases.diffusers_adapter import (
    Autoencoder,
    NegativeTextAdapter,
    by_rows,
    configs_of,
    device_of_weights,
)
from mmalign.adapters.bases.formats import Configs, Frame, sides_of
from mmalign.core.errors import MediaError
from mmalign.core.options import AtLeastOne
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Modality
from mmalign.loading.foreign import Pipeline, PretrainedModel


@dataclass
class LatentImages:
    """An `AutoencoderKL` (any with `encode(...).latent_dist` and `decode(...).sample`) between latents and images."""

    vae: PretrainedModel
    rows: int = 8
    recompute: bool = False

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode latents to images nominally in [0, 1], float32, not clamped, with gradient to `x`."""
        device_type = x.device.type
        with torch.autocast(device_type, enabled=False):
            return by_rows(self._picture, x.float(), self.rows, self.recompute)

    @without_gradient
    def latents(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Return the mode of the encoder's distribution for images in [0, 1], scaled for the generator, float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise MediaError(f"images must be (B, 3, H, W) in [0, 1]; got {tuple(images.shape)}.")
        images = images.to(device_of_weights(self.vae), torch.float32)
        with torch.autocast(images.device.type, enabled=False):
            return by_rows(self._latent, images, 1)  # a row's latents do not depend on the others

    def _picture(self, x: Tensor) -> Tensor:
        scale, shift = self._scale(x), self._shift(x)
        return self.vae.decode(x / scale + shift).sample / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        z = self.vae.encode(images * 2 - 1).latent_dist.mode()
        return (z - self._shift(z)) * self._scale(z)

    def _scale(self, like: Tensor) -> Tensor | float:
        std = self.vae.config.get("latents_std")
        factor = float(self.vae.config.scaling_factor)
        return factor if std is None else factor / torch.tensor(std, device=like.device).view(1, -1, 1, 1)

    def _shift(self, like: Tensor) -> Tensor | float:
        mean = self.vae.config.get("latents_mean")
        if mean is not None:
            return torch.tensor(mean, device=like.device).view(1, -1, 1, 1)
        return float(self.vae.config.get("shift_factor") or 0.0)


@dataclass
class ImageAdapter(NegativeTextAdapter):
    """An adapter from text to images; latents are (B, C, h, w), images (B, 3, H, W).

    Args:
        resolution: of the images in pixels, both sides; what the checkpoint was trained at by default.
        height, width: in pixels, where the sides differ.
        decode_rows: images decoded at once.
    """

    resolution: AtLeastOne | None = None
    height: AtLeastOne | None = None
    width: AtLeastOne | None = None

    modality: ClassVar[Modality] = "image"
    images: ClassVar[type[LatentImages]] = LatentImages

    @staticmethod
    @abstractmethod
    def frame(configs: Configs) -> Frame:
        """Tell what the images of a checkpoint are like, by its configuration files alone."""

    def open_outputs(self, pipe: Pipeline) -> Autoencoder:
        """Set `height`, `width` and `latent_shape`; ConfigError for a size that the checkpoint cannot make."""
        frame, scale = self.frame(configs_of(pipe)), pipe.vae_scale_factor
        height, width = self.height, self.width = sides_of(self, frame)
        self.latent_shape = (frame.channels, height // scale, width // scale)
        return self.images(pipe.vae, self.decode_rows, self.gradient_checkpointing)
