"""The picture of a clip that generators work on: a log-mel spectrogram, and the way back to sound without a network."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmalign.miniworld.tunes.tune import RATE

if TYPE_CHECKING:
    from torch import Tensor

HOP, WINDOW = 256, 1024
BINS = 80
LOWEST, HIGHEST = 150.0, 7_600.0
#: Strengths below this (-80 dB of a loud clip) are silence.
FLOOR = 1e-4


@lru_cache(maxsize=1)
def _mel_scale() -> Any:
    from torchaudio.transforms import MelScale

    return MelScale(BINS, RATE, LOWEST, HIGHEST, WINDOW // 2 + 1, norm="slaney", mel_scale="slaney")


def log_mel(sound: "Tensor") -> "Tensor":
    import torch

    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, center=True, return_complex=True)[..., :-1].abs()
    return _mel_scale()(spectrum).clamp_min(FLOOR).log()
