"""What the U-Net families must be for a plain call of the network to be the whole prediction."""

from __future__ import annotations

from typing import Any

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
