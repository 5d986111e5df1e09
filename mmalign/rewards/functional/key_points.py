"""How answers about single key points become one number per output (AlignEvaluator, PromptEnhancer 2509.04545).

The paper says: match or not per point, the mean in each group, the mean of the groups. Probabilities in place of
matches, the gate of parents (as in the Davidsonian scene graph, Cho et al. 2024) and the other reductions are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int

from mmalign.core.tensor import Tensor


def gated(yes: Float[Tensor, " N"], parents: Sequence[Sequence[int]]) -> Float[Tensor, " N"]:
    """Each point's probability times those of its parents, which are gated themselves; NaN where any of them is.

    Args:
        yes: P(the point holds), in [0, 1].
        parents: of each point, the numbers of earlier ones.
    """
    products: list[Tensor] = []
    for own, above in zip(yes, parents, strict=True):
        for parent in above:
            own = own * products[parent]
        products.append(own)
    return torch.stack(products) if products else yes


def group_means(
    value: Float[Tensor, " N"],
    row: Int[Tensor, " N"],
    group: Int[Tensor, " N"],
    weight: Float[Tensor, " N"],
    shape: tuple[int, int],
) -> Float[Tensor, "B G"]:
    """Weighted mean of the points of each row and group, of `shape` (B, G); NaN where there are none.

    Points whose value is NaN (the judge gave no answer) are left out.
    """
    has_answer = ~value.isnan()
    slot = (row * shape[1] + group)[has_answer]
    zeros = value.new_zeros(shape[0] * shape[1])
    total = zeros.index_add(0, slot, (weight * value)[has_answer])
    count = zeros.index_add(0, slot, weight[has_answer])
    return torch.where(count > 0, total / count, float("nan")).view(shape)


def key_point_scores(
    value: Float[Tensor, " N"],
    row: Int[Tensor, " N"],
    group: Int[Tensor, " N"],
    weight: Float[Tensor, " N"],
    share: Float[Tensor, " G"],
    rows: int,
) -> dict[str, Float[Tensor, " B"]]:
    """Four readings of the points of B rows, each in [0, 1], NaN for a row without an answer.

    `groups`, the paper's: the mean in each group, then of the groups that a row has. `flat`: the mean of all points.
    `all`: exp(mean log P), near 0 as soon as one point fails. `hard`: as `groups`, with P at least ½ counted as 1.

    Args:
        value: P(the point holds) of N points, after gating; NaN where there is no answer.
        row: the output each is about.
        group: its group.
        weight: of the point in its group (and in `flat` and `all`).
        share: of each group in the mean of groups.
        rows: B.
    """

    def over_groups(value: Tensor) -> Tensor:
        means = group_means(value, row, group, weight, (rows, len(share)))
        shares = torch.where(means.isnan(), 0.0, share)
        return (means.nan_to_num() * shares).sum(1) / shares.sum(1)

    def over_all(value: Tensor) -> Tensor:
        return group_means(value, row, torch.zeros_like(group), weight, (rows, 1))[:, 0]

    hard = torch.where(value.isnan(), value, (value >= 0.5).to(value.dtype))
    return {
        "groups": over_groups(value),
        "flat": over_all(value),
        "all": over_all(value.log()).exp(),
        "hard": over_groups(hard),
    }
