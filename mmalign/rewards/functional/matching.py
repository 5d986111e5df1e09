"""Which predicted box answers which true one, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor
from mmalign.rewards.functional.boxes import box_ciou, box_diou, box_giou, box_iou

Overlap = Literal["iou", "giou", "diou", "ciou"]
_KINDS: dict[str, tuple[Callable[..., Tensor], float]] = {
    "iou": (box_iou, 0.0),
    "giou": (box_giou, -1.0),
    "diou": (box_diou, -1.0),
    "ciou": (box_ciou, -1.5),
}
_NOTHING = -1e-9  # quality of a pair that is not allowed


@dataclass(frozen=True)
class Matched:
    """`pairs` (predicted, true) of a one-to-one assignment; `score` in [0, 1]; `iou` of each pair."""

    pairs: list[tuple[int, int]]
    score: float
    iou: Float[Tensor, " K"]


def assign(quality: Float[Tensor, "N M"], allowed: Bool[Tensor, "N M"] | None = None) -> list[tuple[int, int]]:
    """Pairs (row, column) of the one-to-one assignment of greatest total quality; pairs not `allowed` are left out.

    Optimal (Hungarian), not greedy: of [[.8, .7], [.75, .1]] greedy takes .9 in all, this 1.45. Quality is not
    negative; a pair that becomes allowed never lowers the total.
    """
    from scipy.optimize import linear_sum_assignment

    if not quality.numel():
        return []
    allowed = torch.ones_like(quality, dtype=torch.bool) if allowed is None else allowed
    # A forbidden pair is worth a little less than an allowed one of quality 0, and no more than that: two poor pairs
    # must not push out a good one only because they are two.
    worth = quality.double().where(allowed, torch.tensor(_NOTHING, dtype=torch.float64))
    rows, columns = linear_sum_assignment(worth.numpy(), maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]


def match_boxes(
    predicted: Float[Tensor, "N 4"],
    truth: Float[Tensor, "M 4"],
    kind: Overlap = "iou",
    threshold: float = 0.0,
    same_label: Bool[Tensor, "N M"] | None = None,
) -> Matched:
    """Σ quality of the matched pairs / max(N, M): misses, extra boxes and duplicates all cost; no boxes at all: 1.

    Quality is the overlap moved to [0, 1]: (overlap - lowest)/(1 - lowest), so IoU itself and (GIoU + 1)/2.

    Args:
        predicted: valid xyxy boxes.
        truth: valid xyxy boxes in the same frame.
        kind: of overlap, see `boxes`.
        threshold: pairs of a lower IoU do not count.
        same_label: pairs whose labels agree; others do not count.
    """
    n, m = len(predicted), len(truth)
    if not n or not m:
        return Matched([], float(n == m), predicted.new_zeros(0))
    first, second = predicted.repeat_interleave(m, 0), truth.repeat(n, 1)
    measure, lowest = _KINDS[kind]
    quality = (measure(first, second).reshape(n, m) - lowest) / (1 - lowest)
    iou = box_iou(first, second).reshape(n, m)
    allowed = iou >= threshold
    pairs = assign(quality, allowed if same_label is None else allowed & same_label)
    total = sum(float(quality[i, j]) for i, j in pairs)
    return Matched(pairs, total / max(n, m), torch.stack([iou[i, j] for i, j in pairs]) if pairs else iou.new_zeros(0))
