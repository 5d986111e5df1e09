"""Statistics of DAC's encoder over a sound: how it sounds, whatever it means."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.rewards.encoders._frames import CodecEncoder

__all__ = ["DacEncoder"]


@dataclass
class DacEncoder(CodecEncoder):
    """Mean and standard deviation over time of the frames before quantisation; `checkpoint`: that of a DacModel."""

    kind = "dac"
