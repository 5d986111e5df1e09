"""Integrated loudness of sound by ITU-R BS.1770-4: K-weighting, blocks of 0.4 s, two gates.

torchaudio.functional.loudness is not used: its filters cut their output at full scale, so that loud sounds read low
(a 997 Hz tone at 0 dBFS by 0.27 LU), and approximate the standard's.
"""

from __future__ import annotations

import math

from jaxtyping import Float

from mmalign.core.errors import MediaError
from mmalign.core.packages import need
from mmalign.core.tensor import Tensor

__all__ = ["GATE", "k_weighting", "lufs"]

GATE = -70.0  # LUFS below which nothing is heard
_SIDE = 1.41  # of channels from 60 to 120 degrees; those behind count as those before, the one of low effects nothing
#: By the number of channels, in the order of WAV and FLAC (BS.1770-4, tables 3 and 4).
_WEIGHTS = {
    1: (1.0,),
    2: (1.0, 1.0),
    3: (1.0, 1.0, 1.0),  # left, right, centre
    4: (1.0, 1.0, _SIDE, _SIDE),  # left, right, two surrounds
    5: (1.0, 1.0, 1.0, _SIDE, _SIDE),
    6: (1.0, 1.0, 1.0, 0.0, _SIDE, _SIDE),  # 5.1: the fourth is the one of low effects
    7: (1.0, 1.0, 1.0, 0.0, 1.0, _SIDE, _SIDE),  # 6.1: back centre, sides
    8: (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, _SIDE, _SIDE),  # 7.1: backs, sides
}


def lufs(sound: Float[Tensor, "C S"], rate: int) -> float | None:
    """LUFS, at least `GATE`; None for a sound shorter than one block.

    Raises:
        MediaError: more than 8 channels, whose places nothing tells.
    """
    lfilter = need("torchaudio.functional").lfilter

    if (weighted := _WEIGHTS.get(len(sound))) is None:
        raise MediaError(f"loudness is of 1 to 8 channels, whose places are known; these are {len(sound)}.")
    block = round(0.4 * rate)
    if sound.shape[1] < block:
        return None
    wave = sound.double()
    for b, a in k_weighting(rate):
        wave = lfilter(wave, wave.new_tensor(a), wave.new_tensor(b), clamp=False)
    weights = wave.new_tensor(weighted)
    power = weights @ wave.unfold(1, block, round(0.1 * rate)).square().mean(2)  # of every block
    above_gate = power[_level(power) > GATE]
    if not len(above_gate):
        return GATE
    return float(_level(above_gate[_level(above_gate) > _level(above_gate.mean()) - 10].mean()))


def k_weighting(rate: int) -> list[tuple[list[float], list[float]]]:
    """Two filters as (b, a): the head's high shelf and a high pass, designed for any rate; the standard's at 48 kHz."""
    shelf, damping, gain = (
        math.tan(math.pi * 1681.974450955533 / rate),
        0.7071752369554196,
        10 ** (3.999843853973347 / 20),
    )
    middle = gain**0.4996667741545416
    low, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    size = 1 + shelf / damping + shelf**2
    b = [gain + middle * shelf / damping + shelf**2, 2 * (shelf**2 - gain), gain - middle * shelf / damping + shelf**2]
    return [([value / size for value in b], _poles(shelf, damping)), ([1.0, -2.0, 1.0], _poles(low, q))]


def _poles(k: float, q: float) -> list[float]:
    size = 1 + k / q + k**2
    return [1.0, 2 * (k**2 - 1) / size, (1 - k / q + k**2) / size]


def _level(power: Tensor) -> Tensor:
    return -0.691 + 10 * power.log10()
