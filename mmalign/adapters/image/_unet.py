"""What the U-Net families share: which checkpoints a plain call of the network is enough for, and their size."""

from __future__ import annotations

from typing import Any

from mmalign.adapters.loading.described import Configs, Frame, image_scale
from mmalign.core.errors import CapabilityError


def check_plain(pipe: Any, model: str) -> None:
    """Raise CapabilityError for checkpoints whose U-Net takes more than noisy latents, a time and a text condition."""
    config = pipe.unet.config
    if config.time_cond_proj_dim is not None:
        raise CapabilityError(
            f"{model}: its U-Net takes the guidance scale as an input (guidance-distilled), which is not supported."
        )
    if config.in_channels != pipe.vae.config.latent_channels:
        raise CapabilityError(
            f"{model}: its U-Net takes {config.in_channels} channels and its autoencoder makes "
            f"{pipe.vae.config.latent_channels}; inpainting and depth models are not supported."
        )


def unet_frame(configs: Configs) -> Frame:
    """Latents as the U-Net takes them, pictures of the size it was trained on."""
    unet, scale = configs("unet"), image_scale(configs)
    size = unet["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Frame(unet["in_channels"], (height * scale, width * scale), scale)
