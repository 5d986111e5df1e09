"""What objectives of one kind share: rows that all count alike, and a preference loss over pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float

from mmalign.core.experience import Pairs
from mmalign.core.protocols import DensityPolicy, Mean, Metrics, one_process
from mmalign.core.tensor import Tensor
from mmalign.objectives._pairs import PreferenceOptions, add_reference_terms, preference_loss, share_skipped
from mmalign.objectives._weights import per_row


class RowsAlike:
    """An objective whose valid rows (outputs, pairs, requests) all weigh the same."""

    def weigh(self, mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
        """Every valid row alike; the weights sum to 1 over the processes' mean."""
        return per_row(mask, mean)


@dataclass
class PreferenceObjective(RowsAlike, ABC):
    """An objective that makes pairs of outputs and trains by a preference loss over them."""

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    @property
    @abstractmethod
    def preference(self) -> PreferenceOptions:
        """The preference loss and its strength."""

    def with_reference(self, policy: DensityPolicy, pairs: Pairs, rng: torch.Generator) -> Pairs:
        """The pairs with what the loss needs and `collect` fixes: noise, and what the reference says of both sides."""
        return add_reference_terms(policy, pairs, self.preference, rng, self.over_ranks)

    def counts(self, experience: Pairs) -> Metrics:
        """The share of pairs that are skipped."""
        return share_skipped(experience)

    def loss(self, policy: DensityPolicy, chunk: Pairs, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × loss of these pairs."""
        return preference_loss(policy, chunk, self.preference)


__all__ = ["PreferenceObjective", "RowsAlike"]
