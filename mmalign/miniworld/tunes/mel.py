"""The picture of a clip that generators work on: a log-mel spectrogram, and the way back to sound without a network.

A clip is 128 frames of 64 bins. What the verifier reads survives the way there and back.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.packages import need
from mmalign.miniworld.tunes.tune import RATE, SAMPLES

HOP, WINDOW = 256, 1024
FRAMES = SAMPLES // HOP
BINS = 64
LOWEST, HIGHEST = 150.0, 7_600.0  # Hz
#: Amplitudes below this, about 80 dB under a loud tone, are silence.
FLOOR = 1e-4


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """``(WINDOW // 2 + 1, BINS)`` triangles of equal area on Slaney's scale."""
    melscale_fbanks = need("torchaudio.functional").melscale_fbanks

    return melscale_fbanks(WINDOW // 2 + 1, LOWEST, HIGHEST, BINS, RATE, norm="slaney", mel_scale="slaney")


@lru_cache(maxsize=1)
def _unmixing() -> Tensor:
    """The filters' pseudo-inverse ``(BINS, WINDOW // 2 + 1)``."""
    return torch.linalg.pinv(_filters())


def log_mel(sound: Float[Tensor, "B S"]) -> Float[Tensor, "B F M"]:
    """Natural logarithms of mel amplitudes, as HiFi-GAN vocoders take them: ``S // HOP`` frames of ``BINS``."""
    window = torch.hann_window(WINDOW, dtype=sound.dtype, device=sound.device)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    amplitudes = spectrum[..., : sound.shape[1] // HOP].abs().transpose(1, 2)
    return (amplitudes @ _filters().to(sound)).clamp_min(FLOOR).log()


def griffin_lim(mel: Float[Tensor, "B F M"], iterations: int = 32) -> Float[Tensor, "B S"]:
    """Sound whose log-mel spectrogram is nearly this one: ``F * HOP`` samples (Griffin and Lim 1984, fast variant).

    Phases start at zero, so that the result does not depend on chance.
    """
    griffinlim = need("torchaudio.functional").griffinlim

    amplitudes = (mel.exp() @ _unmixing().to(mel)).clamp_min(0).transpose(1, 2)
    amplitudes = torch.cat([amplitudes, amplitudes[..., -1:]], dim=-1)
    window = torch.hann_window(WINDOW, dtype=mel.dtype, device=mel.device)
    return griffinlim(
        amplitudes,
        window,
        WINDOW,
        HOP,
        WINDOW,
        power=1.0,
        n_iter=iterations,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
