"""The mathematics of rewards as plain functions on tensors: no models, no files, no state.

    Fréchet distance     gaussian, frechet_distance, frechet_between, frechet_of_subsets
                         frechet_credit, frechet_leave_one_out
    kernel distance      mmd, kad, mmd_credit, median_bandwidth
    diversity            vendi_score, vendi_score_kernel, vendi_credit
    boxes                valid_boxes, box_iou, box_giou, box_diou, box_ciou
    CLIP and captions    clip_score, ref_clip_score, bmas
    combining            group_normalize, group_rank, log_sigmoid_and, stratified

Statistics of sets are taken in float64 whatever comes in; sums of small squares in float32 turn negative.
"""

from mmalign.rewards.functional.bmas import bmas
from mmalign.rewards.functional.boxes import box_ciou, box_diou, box_giou, box_iou, valid_boxes
from mmalign.rewards.functional.clip_scores import clip_score, ref_clip_score
from mmalign.rewards.functional.conjunction import log_sigmoid_and
from mmalign.rewards.functional.frechet import (
    Gaussian,
    frechet_between,
    frechet_credit,
    frechet_distance,
    frechet_leave_one_out,
    frechet_of_subsets,
    gaussian,
)
from mmalign.rewards.functional.groups import group_normalize, group_rank
from mmalign.rewards.functional.mmd import kad, median_bandwidth, mmd, mmd_credit
from mmalign.rewards.functional.strata import stratified
from mmalign.rewards.functional.vendi import vendi_credit, vendi_score, vendi_score_kernel

__all__ = [
    "Gaussian",
    "bmas",
    "box_ciou",
    "box_diou",
    "box_giou",
    "box_iou",
    "clip_score",
    "frechet_between",
    "frechet_credit",
    "frechet_distance",
    "frechet_leave_one_out",
    "frechet_of_subsets",
    "gaussian",
    "group_normalize",
    "group_rank",
    "kad",
    "log_sigmoid_and",
    "median_bandwidth",
    "mmd",
    "mmd_credit",
    "ref_clip_score",
    "stratified",
    "valid_boxes",
    "vendi_credit",
    "vendi_score",
    "vendi_score_kernel",
]
