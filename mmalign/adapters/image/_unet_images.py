"""Image families with a U-Net (Ronneberger et al., 1505.04597) that diffuses: Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmalign.adapters.bases.formats import Configs, Frame, image_scale
from mmalign.adapters.bases.image_adapter import ImageAdapter
from mmalign.adapters.bases.levels import DiffusionLevels
from mmalign.core.errors import CapabilityError
from mmalign.loading.foreign import Pipeline


@dataclass
class UNetImages(DiffusionLevels, ImageAdapter):
    """A pipeline whose network is `unet`."""

    component: ClassVar[str] = "unet"

    def inspect(self, pipe: Pipeline) -> None:
        """Refuse checkpoints whose U-Net takes more than noisy latents, a time and a text condition."""
        super().inspect(pipe)
        config = pipe.unet.config
        if config.time_cond_proj_dim is not None:
            raise CapabilityError(
                f"{self.model}: its U-Net takes the guidance scale as an input (guidance-distilled), which is not "
                "supported."
            )
        if config.in_channels != pipe.vae.config.latent_channels:
            raise CapabilityError(
                f"{self.model}: its U-Net takes {config.in_channels} channels and its autoencoder makes "
                f"{pipe.vae.config.latent_channels}; inpainting and depth models are not supported."
            )

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return the format of latents as the U-Net takes them, and of images of its training size."""
        unet, scale = configs("unet"), image_scale(configs)
        size = unet["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return Frame(unet["in_channels"], (height * scale, width * scale), scale)
