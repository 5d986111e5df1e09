"""Encoders of sound that see it as frames over time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.rewards.models.codec import Codec, Kind, load_codec
from mmalign.rewards.models.frozen import local_or_hub
from mmalign.rewards.models.waves import mean_and_std


class FrameEncoder(ABC):
    """One whose embedding of a sound is the mean and the standard deviation of its frames over time."""

    @abstractmethod
    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """The frames of each of B sounds, with gradient; none for one that cannot be embedded."""

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per sound, with gradient; NaN for one that cannot be embedded."""
        return mean_and_std(self.frames(rollout))


@dataclass
class CodecEncoder(FrameEncoder):
    """Frames of a neural codec's encoder before quantisation; `checkpoint`: a model of the class of `kind`."""

    checkpoint: str
    modalities = frozenset({"audio"})
    differentiable = True
    kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        local_or_hub(self.checkpoint)

    @property
    def codec(self) -> Codec:
        """The model, loaded on first use."""
        return load_codec(self.kind, self.checkpoint)

    def prepare(self) -> None:
        """Load the model."""
        _ = self.codec

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """The frames of each sound."""
        return self.codec.frames(rollout.output)

    def fingerprint(self) -> str:
        """The digest of weights, rate and channels."""
        return self.codec.fingerprint
