"""Unit features of a CLAP model, for sounds and for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Rollout
from mmalign.rewards.models.clap_towers import ClapBackend, ClapSource, ReadsClap

__all__ = ["ClapEncoder"]


@dataclass
class ClapEncoder(ReadsClap):
    """Sounds through the audio tower (mean over fixed windows), texts through the text tower; options as `clap`'s."""

    checkpoint: str
    backend: ClapBackend = "auto"
    processor: str = ""
    hop: float = 0.0
    modalities = frozenset({"audio", "text"})
    differentiable = True

    def __post_init__(self) -> None:
        self._source = ClapSource(self.checkpoint, self.backend, self.processor, self.hop)

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; with gradient for sounds that carry it; NaN for a sound that cannot be embedded."""
        output = rollout.output
        return self.towers.sounds(output) if isinstance(output, Audio) else self.texts(output)

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """The windows of each sound."""
        return self.towers.windows(rollout.output)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Texts, no gradient; on the model's device."""
        return self.towers.texts(texts)
