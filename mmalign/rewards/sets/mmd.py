"""How near a set is to a reference set: minus the kernel distance of their embeddings (KAD, CMMD in any encoder)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.files import require_local
from mmalign.core.options import NotNegative, Positive
from mmalign.core.tensor import Tensor
from mmalign.rewards.encoders import EncodedSet, make_encoder
from mmalign.rewards.functional import median_bandwidth, mmd, mmd_credit, mmd_of_swaps, self_likeness
from mmalign.rewards.reference_sets.statistics import encoder_of, load_reference

__all__ = ["Mmd"]


@dataclass
class Mmd(EncodedSet):
    """Minus `scale` times the unbiased MMD² between a set's embeddings and the reference's; unbiased at any set size.

    Args:
        reference: a folder of pictures or sounds, a `.txt` of texts, or `.safetensors` statistics that keep their rows.
        encoder: a CLIP checkpoint, or an encoder's spec {name: …, options…}; as for `frechet`.
        bandwidth: of the Gaussian kernel; 0: the median distance within the reference.
        scale: 100 gives KAD's numbers.
        pairs: captioned sounds that measure the modality gap where the reference is text and the outputs are sounds.
    """

    reference: str
    encoder: str | dict[str, Any] = ""
    bandwidth: NotNegative = 0.0
    scale: Positive = 100.0
    pairs: str = ""

    def __post_init__(self) -> None:
        require_local(self.reference)
        self.encoder = self.encoder or encoder_of(self.reference)
        self.embedder = make_encoder(self.encoder)

    @cached_property
    def target(self) -> tuple[Float[Tensor, "M D"], float]:
        """The reference's rows, embedded on first use, and the bandwidth."""
        rows = load_reference(self.reference, self.embedder, pairs=self.pairs).rows
        if rows is None:
            raise DataError(
                f"{self.reference}: its statistics keep no rows, which a kernel needs; save them with rows."
            )
        return rows, self.bandwidth or median_bandwidth(rows)

    @cached_property
    def within_reference(self) -> float:
        """How alike the reference's rows are: the same for every set, and the largest kernel of all."""
        return self_likeness(*self.target)

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """Minus the distance; above 0 where the sets are more alike than two draws of one distribution."""
        return -self.scale * mmd(embedding, *self._beside(embedding), self.within_reference)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's exact leave-one-out contribution to the score, mean 0."""
        return self.scale * mmd_credit(embedding, *self._beside(embedding))

    def swap_scores(self, kept: Float[Tensor, "N D"], other: Float[Tensor, "N D"], start: int) -> Float[Tensor, " S"]:
        """The score with row i of `kept` replaced by row i of `other`, for each i from `start`, all at once."""
        return -self.scale * mmd_of_swaps(kept, other, start, *self._beside(kept), self.within_reference)

    def _beside(self, embedding: Tensor) -> tuple[Tensor, float]:
        rows, bandwidth = self.target
        return rows.to(embedding.device), bandwidth
