"""Adapters around a diffusers pipeline that makes sound, and the autoencoders between latents and sound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from mmalign.adapters.bases.diffusers_adapter import DiffusersAdapter, by_rows, device_of_weights
from mmalign.adapters.bases.formats import Configs, SoundFormat
from mmalign.core.errors import MediaError
from mmalign.core.options import AtLeastOne
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Modality
from mmalign.loading.foreign import PretrainedModel


@dataclass
class SoundAdapter(DiffusersAdapter):
    """An adapter from text to sound: `Audio` of samples (B, channels, S).

    Args:
        decode_rows: sounds decoded at once.
    """

    decode_rows: AtLeastOne = 4

    modality: ClassVar[Modality] = "audio"

    @staticmethod
    @abstractmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Tell what the sounds of a checkpoint are like, by its configuration files alone."""

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.loaded.autoencoder.rate)


class SoundDecoder(ABC):
    """Latents to sound, `rows` rows at once, cut to `samples`; `recompute` makes activations again in backward."""

    samples: int
    rows: int
    recompute: bool

    @property
    @abstractmethod
    def rate(self) -> int:
        """Samples a second, Hz."""

    @abstractmethod
    def _sound(self, x: Tensor) -> Tensor:
        """Sound (b, channels, S) of a few rows of latents."""

    def _needed(self, x: Tensor) -> Tensor:
        """The latents that the first `samples` samples depend on."""
        return x

    def decode(self, x: Float[Tensor, "B C *latent"]) -> Audio:
        """Decode to sound (B, channels, samples) nominally in [-1, 1], float32, not clamped, with gradient to `x`."""
        with torch.autocast(x.device.type, enabled=False):
            sound = by_rows(self._sound, self._needed(x.float()), self.rows, self.recompute)
        return Audio(sound[..., : self.samples], self.rate)


@dataclass(kw_only=True)
class LatentSounds(SoundDecoder):
    """An `AutoencoderOobleck` (Evans et al., 2404.10301) between latents of a fixed length and sound.

    `frames`: of the latents. `samples`: of the sound; what latents hold beyond it is neither decoded nor heard.
    """

    vae: PretrainedModel
    frames: int
    samples: int
    rows: int = 8
    recompute: bool = False

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.vae.config.sampling_rate)

    @property
    def hop(self) -> int:
        """Samples of one latent frame."""
        return int(self.vae.hop_length)

    @without_gradient
    def latents(self, audio: Audio) -> Float[Tensor, "B C frames"]:
        """Return the mode of the encoder's distribution, float32; silence follows a sound shorter than the latents.

        What a mask hides is silence too. One channel is heard on both sides; no rate is converted.

        Raises:
            MediaError: another rate, other channels, samples that are not finite, or more of them than are generated.
        """
        sound = checked_sound(audio, self.rate, self.vae.config.audio_channels, self.samples)
        sound = sound.to(device_of_weights(self.vae), torch.float32)
        sound = torch.nn.functional.pad(sound, (0, self.frames * self.hop - sound.shape[2]))
        with torch.autocast(sound.device.type, enabled=False):
            return by_rows(self._latent, sound, 1)  # a row's latents do not depend on the others

    def _needed(self, x: Tensor) -> Tensor:
        return x[..., : math.ceil(self.samples / self.hop) + reach(self.vae.config.downsampling_ratios)]

    def _sound(self, x: Tensor) -> Tensor:
        return self.vae.decode(x).sample

    def _latent(self, sound: Tensor) -> Tensor:
        """The mode of the encoder's distribution."""
        return self.vae.encode(sound).latent_dist.mode()


def checked_sound(audio: Audio, rate: int, channels: int, samples: int) -> Tensor:
    """Return the samples (B, channels, S), silent where a mask hides them; one channel is repeated for all sides.

    Raises:
        MediaError: another rate, other channels, more than `samples`, or samples that are not finite.
    """
    _, own_channels, length = audio.samples.shape
    if audio.rate != rate:
        raise MediaError(f"sound at {audio.rate} Hz; this model's is at {rate} Hz: resample it first.")
    if own_channels not in (1, channels):
        raise MediaError(f"sound of {own_channels} channels; this model's has {channels}: mix or repeat them first.")
    if length > samples:
        raise MediaError(
            f"sound of {length / rate:g} s; this adapter makes {samples / rate:g} s: raise seconds, or cut it."
        )
    if not audio.samples.isfinite().all():
        raise MediaError("sound with samples that are not finite.")
    sound = audio.samples if audio.mask is None else audio.samples * audio.mask[:, None]
    return sound.expand(-1, channels, -1)


def reach(ratios: Sequence[int]) -> int:
    """Count the latent frames beyond the end of a sound that its last sample depends on, for an Oobleck decoder.

    A kernel of 7 at the frames' rate; in each block an upsampling that mixes two frames, and residual units of kernel 7
    with dilations 1, 3 and 9, 39 steps at the block's rate; a kernel of 7 at the end.
    """
    frames, rate = 3.0, 1
    for ratio in reversed(ratios):
        frames, rate = frames + 1 / rate, rate * ratio
        frames += 39 / rate
    return math.ceil(frames + 3 / rate)
