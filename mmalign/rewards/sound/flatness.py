"""How noisy a sound is: its spectral flatness. Broken generators end in hiss."""

from __future__ import annotations

import torch

from mmalign.core.options import AtLeastTwo
from mmalign.core.types import Audio, Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.models.waves import filled, finite_sound

__all__ = ["flatness"]


@rule(modalities={"audio"}, range=(-1.0, 0.0))
def flatness(prompt: Prompt, output: Audio, *, n_fft: AtLeastTwo = 2048) -> float | None:
    """Minus the mean over sounding frames of geometric over arithmetic mean of the power spectrum (of the mix).

    White noise lies near -0.56 (the periodogram's exp(-γ)), a tone near 0; silence is NOT_APPLICABLE.

    Args:
        n_fft: samples of a frame of the spectrum.
    """
    wave = finite_sound(output).mean(0).double()
    if len(wave) < n_fft:
        wave = filled(wave, n_fft, "pad")
    window = torch.hann_window(n_fft, dtype=wave.dtype)
    power = torch.stft(wave, n_fft, n_fft // 2, window=window, center=False, return_complex=True).abs().square()
    audible = power[:, power.mean(0) > 1e-8 * n_fft]
    if not audible.shape[1]:
        return None
    audible = audible + 1e-12
    return -float((audible.log().mean(0).exp() / audible.mean(0)).mean())
