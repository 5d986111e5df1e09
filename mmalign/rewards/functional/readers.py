"""What follows from the log-probs that readers (frozen generators) give to the same outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor


def density_ratio(strong: Float[Tensor, "B T"], weak: Float[Tensor, "B U"]) -> Float[Tensor, " B"]:
    """Σ_t log p_strong - Σ_t log p_weak of each output, in nats.

    Xu et al. 2024, "CDR: Customizable Density Ratios of Strong-over-weak LLMs" (arXiv 2411.02481): the reward is the
    log-likelihood ratio of a better over a worse aligned model, both under the same instruction. Estimates of
    diffusion models are comparable under one noise sample only.
    """
    return strong.double().sum(1).sub(weak.double().sum(1)).float()


def mean_log_prob(log_prob: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """The mean log-prob of a step over the steps in `mask`, in nats; 0 where there are none."""
    return (log_prob.where(mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)).float()


def follow_up_likelihood(
    good: Sequence[Float[Tensor, " B"]], bad: Sequence[Float[Tensor, " B"]]
) -> Float[Tensor, " B"]:
    """The mean of the good follow-ups' log-probs minus the mean of the bad ones', each per step, in nats.

    Zhang et al. 2024, "Aligning Language Models Using Follow-up Likelihood as Reward Signal" (arXiv 2409.13948); a side
    without follow-ups counts as 0.
    """
    means = [torch.stack(list(side)).mean(0) if side else 0.0 for side in (good, bad)]
    return torch.as_tensor(means[0] - means[1])


def kendall_tau(one: Float[Tensor, " K"], other: Float[Tensor, " K"]) -> Float[Tensor, ""]:
    """Kendall's τ-a of two scorings of the same K ≥ 2 outputs: concordant minus discordant pairs, over all; in [-1, 1].

    A tie on either side counts as 0. CREAM (Wang et al. 2024, arXiv 2410.12735) takes (τ + 1) / 2 for the probability
    that a label of the newer of two self-rewards is right.
    """
    i, j = torch.triu_indices(len(one), len(one), 1, device=one.device)
    return ((one[i] - one[j]).sign() * (other[i] - other[j]).sign()).mean()
