"""Statistics of EnCodec's encoder over a sound: how it sounds, whatever it means."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.rewards.encoders._frames import CodecEncoder

__all__ = ["EncodecEncoder"]


@dataclass
class EncodecEncoder(CodecEncoder):
    """Mean and standard deviation over time of the frames before quantisation; `checkpoint`: an EncodecModel's."""

    kind = "encodec"
