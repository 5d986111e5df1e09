"""Latents to sound and back through Stable Audio 3's autoencoder (SAME, 2605.17991), differentiable, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmalign.adapters.sound._latent_sounds import LatentSounds
from mmalign.core.tensor import Tensor


@dataclass
class SameSounds(LatentSounds):
    """An `AutoencoderSAME`; it encodes without a distribution. `frames`: latents; `samples`: of the sound."""

    def __post_init__(self) -> None:
        """Say what the attention's masks are: of two axes, diffusers 0.42 takes them for (rows, tokens) if it can.

        Where as many rows come as a block has tokens, every row would see other neighbours than alone.
        """
        from diffusers.models.autoencoders.autoencoder_same import SAMEAttention

        for module in self.vae.modules():
            if isinstance(module, SAMEAttention):
                module.register_forward_pre_hook(_for_every_row, with_kwargs=True)

    @property
    def hop(self) -> int:
        """Samples of one latent frame."""
        return int(self.vae.downsampling_ratio)

    def _needed(self, x: Tensor) -> Tensor:
        return x

    def _latent(self, sound: Tensor) -> Tensor:
        return self.vae.encode(sound).latents


def _for_every_row(
    attention: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a mask (tokens, tokens) its two axes for rows and heads."""
    mask = named.get("attn_mask")
    return arguments, named if mask is None or mask.ndim != 2 else {**named, "attn_mask": mask[None, None]}
