"""The log-mel front end against the extractors it replaces, and its gradient against finite differences."""

from typing import Any, Literal

import numpy as np
import pytest
import torch

from mmalign.core.errors import MediaError
from mmalign.media.mel import LogMel

HTS: dict[str, Any] = {"rate": 48_000, "n_fft": 1024, "hop": 480, "bands": 64, "low": 50.0, "high": 14_000.0}


def music(seconds: float = 1.0, rate: int = 48_000) -> torch.Tensor:
    """A chord with a little noise, and a silent end."""
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    wave = sum(0.2 * torch.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 3520.0))
    wave = wave + 0.003 * torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wave[-len(time) // 4 :] = 0
    return wave.float()


@pytest.mark.parametrize("truncation, scale", [("rand_trunc", "slaney"), ("fusion", "htk")])
@pytest.mark.parametrize("seconds", [1.0, 0.3])
def test_equal_to_clap_feature_extractor(truncation: str, scale: Literal["slaney", "htk"], seconds: float) -> None:
    from transformers import ClapFeatureExtractor

    from mmalign.rewards.models.waves import windows

    extractor = ClapFeatureExtractor(max_length_s=1, frequency_min=50, truncation=truncation)
    wave = music(seconds)
    given = extractor(wave.numpy(), sampling_rate=48_000, return_tensors="pt")["input_features"][0]
    found = LogMel(**HTS, scale=scale)(windows(wave, 48_000, 48_000))[0]
    assert given.shape == (4 if truncation == "fusion" else 1, 101, 64)
    for channel in given:
        assert (channel - found).abs().max() <= 1e-4


def test_equal_to_torchlibrosa_as_laion_clap_calls_it() -> None:
    """Its published formula: DFT as a matrix, periodic Hann window, reflected ends, librosa's filters, 10 log10."""
    wave, size, hop = music(0.25).double().numpy(), 1024, 480
    n = np.arange(size)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / size)
    matrix = np.exp(-2j * np.pi * np.outer(n, np.arange(size // 2 + 1)) / size) * window[:, None]
    padded = np.pad(wave, size // 2, mode="reflect")
    frames = np.stack([padded[i : i + size] for i in range(0, len(padded) - size + 1, hop)])
    expected = 10 * np.log10(np.clip(np.abs(frames @ matrix) ** 2 @ slaney_filters(), 1e-10, None))
    found = LogMel(**HTS)(torch.from_numpy(wave)[None])[0].numpy()
    assert np.abs(found - expected).max() <= 1e-4 and expected.max() - expected.min() > 60


def slaney_filters() -> np.ndarray:
    """librosa.filters.mel's published formula: linear below 1 kHz, then 27 steps per factor 6.4; equal areas."""
    mel = lambda f: 3 * f / 200 if f < 1000 else 15 + np.log(f / 1000) * 27 / np.log(6.4)  # noqa: E731
    hertz = lambda m: np.where(m < 15, 200 * m / 3, 1000 * np.exp((m - 15) * np.log(6.4) / 27))  # noqa: E731
    edges = hertz(np.linspace(mel(50.0), mel(14_000.0), 66))
    bins = np.linspace(0, 24_000, 513)[:, None]
    up, down = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down)) * 2 / (edges[2:] - edges[:-2])


def test_equal_to_torchaudio_as_fused_laion_clap_calls_it() -> None:
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    noise = 0.1 * torch.randn(1, 24_000)
    mel = MelSpectrogram(48_000, 1024, hop_length=480, f_min=50, f_max=14_000, n_mels=64, norm=None, mel_scale="htk")
    expected = AmplitudeToDB(top_db=None)(mel.double()(noise.double())).transpose(1, 2)
    assert (LogMel(**HTS, scale="htk")(noise.double()) - expected).abs().max() <= 1e-4


def test_gradient_equals_finite_differences() -> None:
    mel = LogMel(rate=800, n_fft=32, hop=16, bands=5, low=20.0, high=380.0)
    wave = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mel, (wave,), eps=1e-6, atol=1e-5)
    silent = torch.zeros(1, 64, dtype=torch.float64, requires_grad=True)
    mel(silent).sum().backward()
    assert torch.equal(silent.grad, torch.zeros_like(silent))  # below the floor: no direction, and no NaN


def test_precision_follows_the_waves_and_short_ones_are_named() -> None:
    assert LogMel()(torch.zeros(1, 4800)).dtype == torch.float32
    with pytest.raises(MediaError, match="needs more than 512 samples, got 512"):
        LogMel()(torch.zeros(1, 512))
