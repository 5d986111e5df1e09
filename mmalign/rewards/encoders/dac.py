"""Statistics of DAC's encoder over a sound: how it sounds, whatever it means."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mmalign.core.types import Rollout
from mmalign.rewards._codec import Codec, load_codec, require_codec
from mmalign.rewards._sound import spread

__all__ = ["DacEncoder"]


@dataclass
class DacEncoder:
    """Mean and standard deviation over time of the frames before quantisation; `checkpoint`: a DacModel's."""

    checkpoint: str
    modalities = frozenset({"audio"})
    differentiable = True

    def __post_init__(self) -> None:
        require_codec(self.checkpoint)

    @property
    def codec(self) -> Codec:
        """The model, loaded on first use."""
        return load_codec("dac", self.checkpoint)

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per sound, with gradient; NaN for one that cannot be embedded."""
        return spread(self.frames(rollout))

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """The frames of each sound."""
        return self.codec.frames(rollout.output)

    def fingerprint(self) -> str:
        """Of weights, rate and channels."""
        return self.codec.fingerprint
