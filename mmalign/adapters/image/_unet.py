"""What the U-Net families share: which checkpoints a plain call of the network is enough for, and their size."""

from __future__ import annotations

from typing import Any

from mmalign.adapters.loading.loaded import Frame
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


def unet_frame(pipe: Any, model: str) -> Frame:
    """Latents as the U-Net takes them, pictures of the size it was trained on; refuses what `check_plain` refuses."""
    check_plain(pipe, model)
    sample_size, scale = pipe.unet.config.sample_size, pipe.vae_scale_factor
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return Frame(pipe.unet.config.in_channels, (height * scale, width * scale), scale)
