"""Rows with other wordings of their prompts: those at the corners of what was worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from mmalign.annotators._rows import Columns, Row, Skipped, each_row, text_encoder
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import TextEncoder

__all__ = ["ConvexHull", "hull_corners"]


def hull_corners(points: Float[ndarray, "N D"], dims: int) -> list[int]:
    """Which of N points are vertices of the convex hull of their first `dims` principal components, in order.

    All of them where there are at most `dims` + 1 distinct ones, or where they span fewer dimensions than one.
    """
    from scipy.spatial import ConvexHull as Hull

    _, first = np.unique(points.round(6), axis=0, return_index=True)
    distinct = np.sort(first)
    centred = np.asarray(points, float)[distinct] - points[distinct].mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((spread > 1e-6 * max(spread[0], 1e-12)).sum()) if len(distinct) > 1 else 0
    dims = min(dims, rank)
    if dims == 0 or len(distinct) <= dims + 1:
        return [int(i) for i in distinct]
    projected = centred @ axes[:dims].T
    ends = [projected[:, 0].argmin(), projected[:, 0].argmax()] if dims == 1 else Hull(projected).vertices
    return [int(i) for i in sorted(distinct[list(ends)])]


@dataclass
class ConvexHull:
    """The row, and one for each of its wordings that is a vertex of the convex hull of all of them.

    ConvexDA ("The Trickle-down Impact of Reward (In-)consistency on RLHF", 2309.16155): of many wordings those that lie
    inside the others add nothing. Reconstruction: a hull in an encoder's full space has every text as a vertex, so it
    is taken in the first principal components; the prompt itself is one of the points and always kept.

    Args:
        encoder: of texts: an encoder's spec {name: text, checkpoint: …}, or a CLIP checkpoint; required.
        column: of the wordings, as `paraphrase` writes them.
        dims: principal components.
    """

    encoder: str | dict[str, Any] = ""
    column: str = "paraphrases"
    dims: AtLeastOne = 2

    embedder: TextEncoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.embedder = text_encoder(self.encoder)

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """One row and more of each of N."""
        return each_row(rows, self._widened)

    def _widened(self, row: Row) -> list[Columns]:
        own = row.text("prompt")
        texts = [own, *(text for text in row.texts(self.column) if text != own)]
        with torch.no_grad():
            points = self.embedder.texts(texts).double().cpu().numpy()
        kept = [texts[i] for i in hull_corners(points, self.dims) if i]
        rest = {name: value for name, value in row.columns.items() if name != self.column}
        return [{**rest, "prompt": text} for text in (own, *kept)]
