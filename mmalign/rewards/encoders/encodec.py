"""Statistics of EnCodec's encoder over a sound: how it sounds, whatever it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmalign.rewards.models import codec as _codec
from mmalign.rewards.models.checkpoint import local_or_hub
from mmalign.rewards.models.codec import Kind

__all__ = ["EncodecEncoder"]


@dataclass
class EncodecEncoder:
    """Mean and standard deviation over time of the frames before quantisation; `checkpoint`: a EncodecModel's."""

    checkpoint: str
    modalities = frozenset({"audio"})
    differentiable = True
    kind: ClassVar[Kind] = "encodec"

    codec = _codec.codec
    prepare = _codec.prepare
    embed = _codec.embed
    frames = _codec.frames
    fingerprint = _codec.fingerprint

    def __post_init__(self) -> None:
        local_or_hub(self.checkpoint)
