"""Latents to sound and back through Stable Audio 3's autoencoder (SAME, 2605.17991), differentiable, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from mmalign.adapters._decode import by_rows
from mmalign.adapters._latent_sounds import checked_sound
from mmalign.core.types import Audio


@dataclass
class SameSounds:
    """An `AutoencoderSAME`; it encodes without a distribution. `frames`: latents; `samples`: of the sound."""

    vae: Any
    frames: int
    samples: int
    rows: int = 8
    recompute: bool = False

    @property
    def rate(self) -> int:
        """Hz."""
        return int(self.vae.config.sampling_rate)

    def decode(self, x: Float[Tensor, "B C frames"]) -> Audio:
        """Sound (B, channels, samples) nominally in [-1, 1], float32, not clamped, with gradient to `x`."""
        with torch.autocast(x.device.type, enabled=False):
            sound = by_rows(self._sound, x.float(), self.rows, self.recompute)
        return Audio(sound[..., : self.samples], self.rate)

    @torch.no_grad()
    def latents(self, audio: Audio) -> Float[Tensor, "B C frames"]:
        """What the encoder says, float32; silence follows where a sound is shorter than the latents.

        Raises:
            MediaError: see `checked_sound`.
        """
        sound = checked_sound(audio, self.rate, self.vae.config.audio_channels, self.samples)
        sound = sound.to(next(self.vae.parameters()).device, torch.float32)
        sound = pad(sound, (0, self.frames * self.vae.downsampling_ratio - sound.shape[2]))
        with torch.autocast(sound.device.type, enabled=False):
            return by_rows(lambda part: self._apart(self._encoded, part), sound, self.rows)

    def _encoded(self, sound: Tensor) -> Tensor:
        return self.vae.encode(sound).latents  # type: ignore[no-any-return]

    def _sound(self, x: Tensor) -> Tensor:
        return self._apart(lambda part: self.vae.decode(part).sample, x)

    def _apart(self, run: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
        """`run(part)`, but never for as many rows as a block has tokens.

        Its attention gives a mask (tokens, tokens), and diffusers 0.42 takes it for one of (rows, tokens) where it can:
        every row would then see other neighbours.
        """
        if len(part) not in self._tokens():
            return run(part)
        return torch.cat([run(part[:1]), self._apart(run, part[1:])])

    def _tokens(self) -> set[int]:
        """Of a sound, in every block of the autoencoder."""
        found, frames = set(), self.frames
        for block in self.vae.decoder.blocks:
            found.add(frames * (block.stride + 1))
            frames *= block.stride
        return found
