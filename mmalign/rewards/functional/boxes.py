"""Intersection over union of paired boxes, and its relatives that also see how far apart boxes are.

Boxes are (x1, y1, x2, y2) with x1 < x2 and y1 < y2, in any one unit; areas are continuous (no "+ 1 pixel"), so
normalised coordinates work too.

| name | formula | range | source |
|---|---|---|---|
| IoU | I / U | [0, 1] | |
| GIoU | IoU - (H - U)/H, H the hull's area | (-1, 1] | Rezatofighi et al. 2019, alg. 1 |
| DIoU | IoU - ρ²/c², ρ between centres, c the hull's diagonal | (-1, 1] | Zheng et al. 2020, eq. 7 |
| CIoU | DIoU - α v, v = 4/π² (Δ atan w/h)², α = v/(1 - IoU + v) | (-1.5, 1] | Zheng et al. 2020, eqs. 8-11 |

Every function refuses invalid boxes: unchecked, an inverted box has positive area and zero intersection, and the GIoU
of [10, 10, 0, 0] with [.1, .1, .5, .5] is 625 times the perfect score.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor


def valid_boxes(
    boxes: Float[Tensor, "N 4"], frame: tuple[float, float] | None = None, tolerance: float = 0.0
) -> Bool[Tensor, " N"]:
    """Which boxes are finite, x1 < x2, y1 < y2 and, if `frame` (width, height) is given, inside it by `tolerance`."""
    ordered = (boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1)
    if frame is None:
        return ordered
    limit = boxes.new_tensor([frame[0], frame[1]]) + tolerance
    return ordered & (boxes[:, :2] >= -tolerance).all(1) & (boxes[:, 2:] <= limit).all(1)


def box_iou(first: Float[Tensor, "N 4"], second: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """IoU of each pair, in [0, 1]. Raises ValueError naming the row of an invalid box; so do the other three."""
    overlap, union = _overlap_and_union(first, second)
    return overlap / union


def box_giou(first: Float[Tensor, "N 4"], second: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """Generalised IoU, in (-1, 1]: IoU minus the share of the smallest box around both that lies in neither."""
    overlap, union = _overlap_and_union(first, second)
    hull = _hull(first, second).prod(1)
    return overlap / union - (hull - union) / hull


def box_diou(first: Float[Tensor, "N 4"], second: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """Distance IoU, in (-1, 1]: IoU minus the squared distance of centres by the squared diagonal around both."""
    between = ((first[:, :2] + first[:, 2:]) - (second[:, :2] + second[:, 2:])).square().sum(1) / 4
    return box_iou(first, second) - between / _hull(first, second).square().sum(1)


def box_ciou(first: Float[Tensor, "N 4"], second: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """Complete IoU of each pair, in (-1.5, 1]; α is a constant to the gradient, as in the paper."""
    iou = box_iou(first, second)
    angles = [torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (first, second)]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape).clamp_min(torch.finfo(iou.dtype).tiny)
    return box_diou(first, second) - weight * shape


def _overlap_and_union(first: Tensor, second: Tensor) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 4:
        raise ValueError(f"boxes are compared in pairs (N, 4), got {tuple(first.shape)} and {tuple(second.shape)}")
    for side, boxes in (("first", first), ("second", second)):
        if len(bad := (~valid_boxes(boxes)).nonzero().flatten()):
            row = int(bad[0])
            raise ValueError(
                f"{side} box {row} is {boxes[row].tolist()}: a box is finite (x1, y1, x2, y2) with x1 < x2 and y1 < y2"
            )
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    overlap = (high - low).clamp_min(0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (first, second)]
    return overlap, areas[0] + areas[1] - overlap


def _hull(first: Tensor, second: Tensor) -> Float[Tensor, "N 2"]:
    """Width and height of the smallest box around both."""
    return torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
