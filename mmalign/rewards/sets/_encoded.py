"""Rewards of sets whose rows are embedded by an encoder."""

from __future__ import annotations

from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.rewards.encoders import SeesThroughEncoder


class EncodedSet(SeesThroughEncoder):
    """One whose embeddings are the encoder's."""

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; with gradient where the encoder passes it."""
        return self._encoder.embed(rollout)
