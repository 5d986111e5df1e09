"""What follows from the gap of two scores: the label of a pair, and how sharp β is for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.options import NotNegative, Positive, must, refuse
from mmalign.core.tensor import Tensor
from mmalign.core.types import Preference, Prompt
from mmalign.objectives._preferences import finite_number


@dataclass
class BetaOfGap:
    """β(δ) = β₀ (1 + w (1 - e^(-k δ))) of a pair whose scores are δ apart.

    MM-RLHF (Zhang et al. 2025, arXiv 2502.10391).

    Args:
        weight: w: by how much β may grow.
        rate: k, per unit of the gap.
    """

    weight: NotNegative = 0.5
    rate: Positive = 1.0

    def __post_init__(self) -> None:
        refuse(
            must(self.weight >= 0, f"beta_of_gap.weight: {self.weight} must be at least 0."),
            must(self.rate > 0, f"beta_of_gap.rate: {self.rate} must be positive."),
        )


def beta_of_gap(gap: Float[Tensor, " B"], weight: float, rate: float) -> Float[Tensor, " B"]:
    """What β is multiplied with, 1 + w (1 - e^(-k δ)), in [1, 1 + w]; a negative gap counts as 0."""
    return 1 + weight * (1 - (-rate * gap.clamp(min=0)).exp())


def label_of_gap(gap: Float[Tensor, " B"], scale: float) -> Float[Tensor, " B"]:
    """P(chosen is better) = σ(gap / scale) (DNO, Rosset et al. 2024, arXiv 2404.03715, eq. 6)."""
    return (gap / scale).sigmoid()


def gaps(
    batch: Sequence[Preference | Prompt], column: str, needed: bool, device: torch.device | str
) -> Float[Tensor, " B"] | None:
    """The gaps of given rows from their column; None where no row has one and none is needed.

    Raises:
        DataError: a row whose gap is no number, or missing where it is needed or where others have it.
    """
    prompts = [row.prompt if isinstance(row, Preference) else row for row in batch]
    entries = [prompt.meta.get(column) for prompt in prompts]
    if not needed and all(entry in (None, "") for entry in entries):
        return None
    values = [None if isinstance(entry, bool) else finite_number(entry) for entry in entries]
    for prompt, entry, value in zip(prompts, entries, values, strict=True):
        if value is None:
            raise DataError(
                f"{prompt.place or repr(prompt.text[:40])}: '{column}' is {entry!r}; expected by how much the chosen "
                "output's score exceeds the rejected one's (dpo reads it as gap_column)."
            )
    return torch.tensor(values, device=device)


__all__ = ["BetaOfGap", "beta_of_gap", "gaps", "label_of_gap"]
