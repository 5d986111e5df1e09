"""KTO's reference point: the log-ratio that each output of a pair is compared with."""

from __future__ import annotations

from dataclasses import replace

import torch

from mmalign.core.experience import Pairs
from mmalign.core.protocols import DensityPolicy, Mean, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import groups
from mmalign.objectives._rollouts import recompute_log_prob, recompute_side_log_probs, reference_sum


def add_reference_point(policy: DensityPolicy, pairs: Pairs, rows: int, over_ranks: Mean = one_process) -> Pairs:
    """Add KTO's reference point z₀: max(0, mean log-ratio of all valid outputs), under the current weights, in nats.

    Taken once per `collect`, over the rows of every process, so it is 0 until the policy has moved and does not depend
    on how the loss is split. Ethayarajh et al. 2024 take mismatched prompts and outputs in each micro-batch.
    """
    chosen, rejected = recompute_side_log_probs(policy, (pairs.chosen, pairs.rejected), pairs.probe, rows)
    ratio = chosen.sum(1) - reference_sum(pairs.ref_chosen) + rejected.sum(1) - reference_sum(pairs.ref_rejected)
    return _with_point(pairs, ratio, pairs.mask, 2.0, over_ranks)


def add_mismatched_reference_point(
    policy: DensityPolicy, pairs: Pairs, rows: int, over_ranks: Mean = one_process
) -> Pairs:
    """Add KTO's reference point, taken of the chosen outputs behind the next row's prompts.

    KTO's published estimate of KL(π ‖ π_ref) (Ethayarajh et al. 2024, sec. 4.1), over all pairs that a process
    collects instead of one micro-batch. Equal prompts (text and media) do not count.
    """
    own = pairs.chosen.prompts
    others, number = [*own[1:], *own[:1]], groups(own)
    differ = number != number.roll(-1)
    shifted = replace(pairs.chosen, prompts=others, group=pairs.chosen.group.roll(-1))
    mask = pairs.mask & differ.to(pairs.mask.device)
    now = recompute_log_prob(policy, shifted, pairs.probe, rows).sum(1)
    with policy.reference():
        before = recompute_log_prob(policy, shifted, pairs.probe, rows).sum(1)
    return _with_point(pairs, now - before, mask, 1.0, over_ranks)


def _with_point(pairs: Pairs, ratio: Tensor, mask: Tensor, each: float, over_ranks: Mean) -> Pairs:
    total = ratio.where(mask, 0.0).sum()
    total, count = over_ranks(torch.stack([total, each * mask.sum().to(total)]))
    point = (total / count.where(count > 0, 1.0)).clamp(min=0)
    return replace(pairs, anchor=point.expand(len(pairs)).clone())


__all__ = ["add_mismatched_reference_point", "add_reference_point"]
