"""Bidirectional max-average similarity of two token sequences (Mixed-R1, Xu et al. 2025).

A reconstruction: only the abstract ("tokenizer embedding matching between the generated response and the ground truth")
is public. BMAS = ½ [mean_i max_j S_ij + mean_j max_i S_ij], S the cosines of token embeddings.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor

_ROWS_AT_ONCE = 4096


def bmas(
    response: Float[Tensor, "M D"],
    reference: Float[Tensor, "N D"],
    centre: Float[Tensor, " D"] | None = None,
    reduce: Literal["mean", "f1"] = "mean",
) -> Float[Tensor, ""]:
    """BMAS of one response (M tokens) and one reference (N tokens), in [-1, 1].

    Blind to order and tolerant of repetition, by construction; pair it with a reward that is not.

    Args:
        response: rows of a *fixed* embedding matrix; the policy's own live one would move the reward with training.
        reference: rows of the same matrix.
        centre: the vocabulary's mean row, subtracted first; without it unrelated texts score .3 to .5.
        reduce: of the two directions: their `mean` (BMAS), or `f1`, their harmonic mean (as BERTScore; 0 where either
            is not positive).

    Raises:
        ValueError: an empty side (an empty response is the caller's PARSE_FAIL).
    """
    if not len(response) or not len(reference):
        raise ValueError(f"BMAS needs tokens on both sides, got {len(response)} and {len(reference)}")
    if centre is not None:
        response, reference = response - centre, reference - centre
    response, reference = (
        torch.nn.functional.normalize(response, dim=1),
        torch.nn.functional.normalize(reference, dim=1).T,
    )
    # Long texts in pieces: the whole table of similarities need never stand in memory.
    tables = [part @ reference for part in response.split(_ROWS_AT_ONCE)]
    forth = torch.cat([table.amax(1) for table in tables]).mean()
    back = torch.stack([table.amax(0) for table in tables]).amax(0).mean()
    if reduce == "mean":
        return (forth + back) / 2
    return torch.where((forth > 0) & (back > 0), 2 * forth * back / (forth + back), torch.zeros_like(forth))
