"""All aspects good at once: the sum of log-sigmoids (Wang et al. 2024, "Transforming and Combining Rewards")."""

from __future__ import annotations

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor


def log_sigmoid_and(
    values: Float[Tensor, "K B"], references: Float[Tensor, " K"] | Float[Tensor, "K B"]
) -> Float[Tensor, " B"]:
    """Σ_k log σ(values_k - references_k), in (-∞, 0]: the log of "all K are good" when each is good with chance σ.

    `references` is what counts as good: one value per aspect, or per aspect and row (such as the 85th percentile of the
    untrained policy's rewards on that prompt). One bad aspect costs more than another's excess gains.
    """
    return torch.nn.functional.logsigmoid(values - (references[:, None] if references.ndim == 1 else references)).sum(0)
