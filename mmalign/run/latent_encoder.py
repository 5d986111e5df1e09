"""Encoder `latents` for sounds from files: through the autoencoder of any generator that an adapter can load."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import FrameEncoder, LatentAdapter
from mmalign.core.types import Modality, Rollout


@dataclass
class LatentEncoder:
    """Gives `encoder` (a `latents`) each sound's latents by `adapter.latents`, as a policy's rollout carries them."""

    encoder: FrameEncoder
    adapter: LatentAdapter

    def __post_init__(self) -> None:
        if self.adapter.modality != "audio" or not hasattr(self.adapter, "latents"):
            raise CapabilityError(f"--adapter: a {type(self.adapter).__name__} turns no sound into latents.")
        self.adapter.load()

    @property
    def modalities(self) -> frozenset[Modality]:
        """The encoder's."""
        return self.encoder.modalities

    @property
    def differentiable(self) -> bool:
        """No: latents are computed without gradient."""
        return False

    def fingerprint(self) -> str:
        """Return the encoder's: how a sound came to its latents does not count."""
        return self.encoder.fingerprint()

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per sound."""
        return self.encoder.embed(self._with_latents(rollout))

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """Return the latent frames of each sound."""
        return self.encoder.frames(self._with_latents(rollout))

    def _with_latents(self, rollout: Rollout) -> Rollout:
        return replace(rollout, trajectory={"x0": self.adapter.latents(rollout.output).cpu()})
