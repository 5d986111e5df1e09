"""Log-mel spectrograms in torch, differentiable in the waveform, equal to what reference extractors compute in NumPy.

| form | filters | who uses it |
|---|---|---|
| `scale: slaney` | Slaney's scale, equal-area triangles (librosa's default) | unfused CLAP, laion-clap's torchlibrosa |
| `scale: htk` | HTK's scale, triangles of height 1 (torchaudio's default) | fused CLAP |

All take a periodic Hann window, centred frames over reflected ends, power 2, and dB with reference 1 and floor `amin`,
without a limit on the dynamic range. The arithmetic is float64: in float32 the bands beside a loud tone are rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.tensor import Tensor

__all__ = ["LogMel"]


@dataclass(frozen=True)
class LogMel:
    """Waves (B, S) → dB (B, F, M) with F = S // hop + 1 frames.

    Args:
        rate: of the waves, Hz.
        n_fft: samples of a frame; also the shortest wave is more than half of it.
        hop: samples between frames.
        bands: mel bands M.
        low: lowest frequency, Hz.
        high: highest frequency, Hz.
        scale: of the filters, see above.
        amin: power below which a band is silent.
    """

    rate: int = 48_000
    n_fft: int = 1024
    hop: int = 480
    bands: int = 64
    low: float = 50.0
    high: float = 14_000.0
    scale: Literal["slaney", "htk"] = "slaney"
    amin: float = 1e-10

    def power(self, waves: Float[Tensor, "B S"]) -> Float[Tensor, "B F M"]:
        """Mel power, float64. Raises MediaError where a wave is too short to reflect."""
        if waves.shape[1] <= self.n_fft // 2:
            raise MediaError(f"a log-mel spectrogram needs more than {self.n_fft // 2} samples, got {waves.shape[1]}.")
        waves = waves.double()
        window = torch.hann_window(self.n_fft, dtype=waves.dtype, device=waves.device)
        spectrum = torch.stft(waves, self.n_fft, self.hop, window=window, pad_mode="reflect", return_complex=True)
        # Not abs()², whose derivative at 0 is not a number.
        power = spectrum.real.square() + spectrum.imag.square()
        return power.transpose(1, 2) @ self.filters().to(waves.device)

    def __call__(self, waves: Float[Tensor, "B S"]) -> Float[Tensor, "B F M"]:
        """Decibels, in the waves' own precision."""
        return (10 * self.power(waves).clamp_min(self.amin).log10()).to(waves.dtype)

    def filters(self) -> Float[Tensor, "K M"]:
        """The filter bank over K = n_fft/2 + 1 frequencies, float64."""
        return _filters(self)


@lru_cache(maxsize=16)
def _filters(mel: LogMel) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=mel.n_fft // 2 + 1,
        num_mel_filters=mel.bands,
        min_frequency=mel.low,
        max_frequency=mel.high,
        sampling_rate=mel.rate,
        norm="slaney" if mel.scale == "slaney" else None,
        mel_scale=mel.scale,
    )
    return torch.from_numpy(bank).double()
