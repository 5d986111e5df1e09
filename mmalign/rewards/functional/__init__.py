"""The mathematics of rewards as plain functions on tensors and plain values: no models, no files, no state.

    Fréchet distance     gaussian, frechet_distance, frechet_between, frechet_of_subsets
                         frechet_credit, frechet_leave_one_out
                         frechet_in_pool, frechet_pool_credit, frechet_infinity, Moments
    kernel distance      mmd, kad, mmd_credit, mmd_of_swaps, self_likeness, median_bandwidth
    diversity            vendi_score, vendi_score_kernel, vendi_credit
    boxes                valid_boxes, box_iou, box_giou, box_diou, box_ciou, assign, match_boxes
    CLIP and captions    clip_score, ref_clip_score, bmas, contrastive_similarity,
                         choice_log_probability
    length               length_window, cosine_length, soft_overlong, group_length, repetition_penalty
    judges               yes_no_margin, yes_probability, key_point_scores, gated, group_means
                         ridge_sums, ridge_weights, rank_agreement
                         criteria_scores, win_rates
    readers              density_ratio, mean_log_prob, follow_up_likelihood, kendall_tau
    answers              relaxed_accuracy, multiset_jaccard, tool_match, tool_format, same_table
                         majority_agreement, vote_share
    combining            group_normalize, group_rank, group_contrast, log_sigmoid_and, stratified

Statistics of sets are taken in float64 whatever comes in; sums of small squares in float32 turn negative.
"""

from mmalign.rewards.functional.agreement import majority_agreement, vote_share
from mmalign.rewards.functional.bmas import bmas
from mmalign.rewards.functional.boxes import box_ciou, box_diou, box_giou, box_iou, valid_boxes
from mmalign.rewards.functional.clip_scores import clip_score, ref_clip_score
from mmalign.rewards.functional.conjunction import log_sigmoid_and
from mmalign.rewards.functional.contrast import (
    choice_log_probability,
    contrastive_similarity,
    embedding_contrast,
)
from mmalign.rewards.functional.criteria import criteria_scores, win_rates
from mmalign.rewards.functional.edit_distance import edit_distance, text_similarity, words_similarity
from mmalign.rewards.functional.frechet import (
    Gaussian,
    frechet_between,
    frechet_credit,
    frechet_distance,
    frechet_leave_one_out,
    frechet_of_subsets,
    gaussian,
)
from mmalign.rewards.functional.frechet_pool import frechet_in_pool, frechet_infinity, frechet_pool_credit
from mmalign.rewards.functional.group_contrast import group_contrast
from mmalign.rewards.functional.groups import group_normalize, group_rank
from mmalign.rewards.functional.key_points import gated, group_means, key_point_scores
from mmalign.rewards.functional.lengths import cosine_length, group_length, length_window, soft_overlong
from mmalign.rewards.functional.matching import Matched, assign, match_boxes
from mmalign.rewards.functional.mmd import kad, median_bandwidth, mmd, mmd_credit, mmd_of_swaps, self_likeness
from mmalign.rewards.functional.moments import Moments
from mmalign.rewards.functional.online_ridge import ridge_sums, ridge_weights
from mmalign.rewards.functional.ranking import rank_agreement
from mmalign.rewards.functional.readers import density_ratio, follow_up_likelihood, kendall_tau, mean_log_prob
from mmalign.rewards.functional.relaxed_accuracy import relaxed_accuracy
from mmalign.rewards.functional.repetition import repetition_penalty
from mmalign.rewards.functional.same_table import same_table
from mmalign.rewards.functional.strata import stratified
from mmalign.rewards.functional.tool_match import multiset_jaccard, tool_format, tool_match
from mmalign.rewards.functional.vendi import vendi_credit, vendi_score, vendi_score_kernel
from mmalign.rewards.functional.yes_no import yes_no_margin, yes_probability

__all__ = [
    "Gaussian",
    "Matched",
    "Moments",
    "assign",
    "bmas",
    "box_ciou",
    "box_diou",
    "box_giou",
    "box_iou",
    "choice_log_probability",
    "clip_score",
    "contrastive_similarity",
    "cosine_length",
    "criteria_scores",
    "density_ratio",
    "edit_distance",
    "embedding_contrast",
    "follow_up_likelihood",
    "frechet_between",
    "frechet_credit",
    "frechet_distance",
    "frechet_in_pool",
    "frechet_infinity",
    "frechet_leave_one_out",
    "frechet_of_subsets",
    "frechet_pool_credit",
    "gated",
    "gaussian",
    "group_contrast",
    "group_length",
    "group_means",
    "group_normalize",
    "group_rank",
    "kad",
    "kendall_tau",
    "key_point_scores",
    "length_window",
    "log_sigmoid_and",
    "majority_agreement",
    "match_boxes",
    "mean_log_prob",
    "median_bandwidth",
    "mmd",
    "mmd_credit",
    "mmd_of_swaps",
    "multiset_jaccard",
    "rank_agreement",
    "ref_clip_score",
    "relaxed_accuracy",
    "repetition_penalty",
    "ridge_sums",
    "ridge_weights",
    "same_table",
    "self_likeness",
    "soft_overlong",
    "stratified",
    "text_similarity",
    "tool_format",
    "tool_match",
    "valid_boxes",
    "vendi_credit",
    "vendi_score",
    "vendi_score_kernel",
    "vote_share",
    "win_rates",
    "words_similarity",
    "yes_no_margin",
    "yes_probability",
]
