"""Adapters around a diffusers pipeline that makes images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from mmalign.adapters.loading.decode import LatentImages
from mmalign.adapters.loading.described import Configs, Frame, sides_of
from mmalign.adapters.loading.diffusers_adapter import Autoencoder, NegativeTextAdapter, configs_of
from mmalign.core.options import AtLeastOne
from mmalign.core.types import Modality


@dataclass
class ImageAdapter(NegativeTextAdapter):
    """Text to images; latents are (B, C, h, w).

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
        """What the images of a checkpoint are like, by its configuration files alone."""

    def open_outputs(self, pipe: Any) -> Autoencoder:
        """Set `height`, `width` and `latent_shape`; ConfigError for a size that the checkpoint cannot make."""
        frame, scale = self.frame(configs_of(pipe)), pipe.vae_scale_factor
        height, width = self.height, self.width = sides_of(self, frame)
        self.latent_shape = (frame.channels, height // scale, width // scale)
        return self.images(pipe.vae, self.decode_rows, self.gradient_checkpointing)
