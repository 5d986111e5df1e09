"""Latents to sound and back through Stable Audio 3's autoencoder (SAME, 2605.17991), differentiable, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from mmalign.adapters.loading.decode import by_rows
from mmalign.adapters.sound._latent_sounds import checked_sound
from mmalign.core.gradient import without_gradient
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio


@dataclass
class SameSounds:
    """An `AutoencoderSAME`; it encodes without a distribution. `frames`: latents; `samples`: of the sound."""

    vae: Any
    frames: int
    samples: int
    rows: int = 8
    recompute: bool = False

    def __post_init__(self) -> None:
        """Say what the attention's masks are: of two axes, diffusers 0.42 takes them for (rows, tokens) if it can.

        Where as many rows come as a block has tokens, every row would see other neighbours than alone.
        """
        from diffusers.models.autoencoders.autoencoder_same import SAMEAttention

        for module in self.vae.modules():
            if isinstance(module, SAMEAttention):
                module.register_forward_pre_hook(_for_every_row, with_kwargs=True)

    @property
    def rate(self) -> int:
        """Hz."""
        return int(self.vae.config.sampling_rate)

    def decode(self, x: Float[Tensor, "B C frames"]) -> Audio:
        """Sound (B, channels, samples) nominally in [-1, 1], float32, not clamped, with gradient to `x`."""
        with torch.autocast(x.device.type, enabled=False):
            sound = by_rows(self._sound, x.float(), self.rows, self.recompute)
        return Audio(sound[..., : self.samples], self.rate)

    @without_gradient
    def latents(self, audio: Audio) -> Float[Tensor, "B C frames"]:
        """What the encoder says, float32; silence follows where a sound is shorter than the latents.

        Raises:
            MediaError: see `checked_sound`.
        """
        sound = checked_sound(audio, self.rate, self.vae.config.audio_channels, self.samples)
        sound = sound.to(next(self.vae.parameters()).device, torch.float32)
        sound = torch.nn.functional.pad(sound, (0, self.frames * self.vae.downsampling_ratio - sound.shape[2]))
        with torch.autocast(sound.device.type, enabled=False):
            return by_rows(lambda part: self.vae.encode(part).latents, sound, self.rows)

    def _sound(self, x: Tensor) -> Tensor:
        return self.vae.decode(x).sample  # type: ignore[no-any-return]


def _for_every_row(
    attention: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a mask (tokens, tokens) its two axes for rows and heads."""
    mask = named.get("attn_mask")
    return given, named if mask is None or mask.ndim != 2 else {**named, "attn_mask": mask[None, None]}
