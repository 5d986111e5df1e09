"""A dense model reward that only orders answers of equal correctness (HERO, arXiv 2510.07242; from a public note)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from mmalign.core.tensor import Tensor


def stratified(
    rule: Float[Tensor, " B"], model: Float[Tensor, " B"], group: Int[Tensor, " B"], low: float, high: float
) -> Float[Tensor, " B"]:
    """Wrong rows get -low + 2 low u, right rows 1 - high + 2 high u, u in [0, 1] by min-max within group and stratum.

    The rule always dominates while low + high < 1. A stratum of one row, or of equal rows, gets its lower end (u = 0).

    Args:
        rule: 1 where right, 0 where wrong (above 0.5 counts as right).
        model: any scale; no NaN.
        group: rows of one number answer one prompt.
        low: half width of the band around 0.
        high: half width of the band around 1.
    """
    if not len(model):
        return model.clone()
    right = rule > 0.5
    same = (group[:, None] == group[None]).to(model.device) & (right[:, None] == right[None])
    least = model[None].expand_as(same).masked_fill(~same, float("inf")).amin(1)
    most = model[None].expand_as(same).masked_fill(~same, float("-inf")).amax(1)
    span = most - least
    u = (model - least) / span.where(span > 0, torch.ones_like(span))
    return torch.where(right, 1 - high + 2 * high * u, -low + 2 * low * u)
