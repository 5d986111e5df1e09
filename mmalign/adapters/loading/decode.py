"""Latents to images and back through a variational autoencoder, differentiable and in float32.

| symbol | here |
|---|---|
| z, the autoencoder's own latent | `x / scaling_factor + shift_factor` |
| x, what the generator is trained on | `(z - shift_factor) * scaling_factor` |

Some autoencoders state a mean and standard deviation per channel instead of a shift: z = x std / scaling_factor + mean.
Float32 because several published autoencoders overflow in float16, and because rewards see every rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.gradient import without_gradient
from mmalign.core.tensor import Tensor


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, rows: int, recompute: bool = False) -> Tensor:
    """`function(x)` in chunks of `rows` rows; with `recompute`, activations are made again in the backward pass."""
    if recompute and torch.is_grad_enabled() and x.requires_grad:
        parts = [torch.utils.checkpoint.checkpoint(function, chunk, use_reentrant=False) for chunk in x.split(rows)]
    else:
        parts = [function(chunk) for chunk in x.split(rows)]
    return torch.cat(parts)


def device_of_weights(module: torch.nn.Module) -> torch.device:
    """Where the weights of `module` lie."""
    return next(module.parameters()).device


@dataclass
class LatentImages:
    """An `AutoencoderKL` (any with `encode(...).latent_dist` and `decode(...).sample`) between latents and images."""

    vae: Any
    rows: int = 8
    recompute: bool = False

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], float32, not clamped, with gradient to `x`."""
        device_type = x.device.type
        with torch.autocast(device_type, enabled=False):
            return by_rows(self._picture, x.float(), self.rows, self.recompute)

    @without_gradient
    def latents(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mode of the encoder's distribution for images in [0, 1], scaled for the generator, float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise MediaError(f"images must be (B, 3, H, W) in [0, 1]; got {tuple(images.shape)}.")
        images = images.to(device_of_weights(self.vae), torch.float32)
        with torch.autocast(images.device.type, enabled=False):
            return by_rows(self._latent, images, self.rows)

    def _picture(self, x: Tensor) -> Tensor:
        scale, shift = self._scale(x), self._shift(x)
        return self.vae.decode(x / scale + shift).sample / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        z = self.vae.encode(images * 2 - 1).latent_dist.mode()
        return (z - self._shift(z)) * self._scale(z)

    def _scale(self, like: Tensor) -> Tensor | float:
        std = getattr(self.vae.config, "latents_std", None)
        factor = float(self.vae.config.scaling_factor)
        return factor if std is None else factor / torch.tensor(std, device=like.device).view(1, -1, 1, 1)

    def _shift(self, like: Tensor) -> Tensor | float:
        mean = getattr(self.vae.config, "latents_mean", None)
        if mean is not None:
            return torch.tensor(mean, device=like.device).view(1, -1, 1, 1)
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)
