"""Key points that stand in the data."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.types import Prompt
from mmalign.rewards.columns import NeedsColumn
from mmalign.rewards.points._key_points import KeyPoint, read_key_points

__all__ = ["Column"]


@dataclass
class Column(NeedsColumn):
    """`Prompt.meta[column]`: a list of {point, question, positive?, parent?, weight?}, see `KeyPoint`.

    `parent` is the number of an earlier point, or a list of such.
    """

    column: str = "key_points"

    def __call__(self, prompt: Prompt) -> list[KeyPoint]:
        """The prompt's key points."""
        return read_key_points(prompt.meta[self.column], f"Prompt.meta['{self.column}']")
