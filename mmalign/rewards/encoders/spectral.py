"""Log-mel statistics of a sound: an encoder without weights, for everything that must work at once and anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import ConfigError
from mmalign.core.types import Rollout
from mmalign.media.mel import LogMel
from mmalign.rewards.encoders._frames import FrameEncoder
from mmalign.rewards.models.waves import filled, waves

__all__ = ["SpectralEncoder"]


@dataclass
class SpectralEncoder(FrameEncoder):
    """Mean and standard deviation over time of a log-mel spectrogram and of its steps from frame to frame.

    Levels in units of 10 dB above -80 dB (`floor`). The levels tell timbre, register and loudness, the steps onsets and
    vibrato. D = 4 bands.

    Args:
        rate: Hz the sound is brought to.
        bands: of the spectrogram, from 40 Hz to nearly half the rate.
        hop: seconds between frames.
    """

    rate: int = 16_000
    bands: int = 32
    hop: float = 0.02
    modalities = frozenset({"audio"})
    differentiable = True

    def __post_init__(self) -> None:
        if self.rate < 4000 or self.bands < 1 or not 0 < self.hop <= 1:
            raise ConfigError("rate must be at least 4000 Hz, bands at least 1 and hop above 0 and at most 1 second.")
        n_fft = 2 ** round(self.rate * 0.064).bit_length() // 2
        self._mel = LogMel(self.rate, n_fft, round(self.hop * self.rate), self.bands, 40.0, 0.475 * self.rate)

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """Levels and steps of each sound's frames, (F, 2 bands)."""
        return [self._frames(wave) for wave in waves(rollout.output, self.rate)]

    def fingerprint(self) -> str:
        """The digest of the options: there are no weights."""
        return f"spectral-1-{self.rate}-{self.bands}-{self.hop:g}"

    def _frames(self, wave: Float[Tensor, " S"]) -> Float[Tensor, "F D"]:
        if not len(wave):
            return wave.new_zeros(0, 2 * self.bands)
        if len(wave) < self._mel.n_fft:
            wave = filled(wave, self._mel.n_fft, "pad")
        level = ((self._mel.power(wave[None])[0] + 1e-8).log10() + 8).to(wave.dtype)
        return torch.cat([level, level.diff(dim=0, prepend=level[:1])], dim=1)
