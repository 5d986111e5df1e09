"""What a language model's next token says to a yes/no question (VQAScore, Lin et al. 2024, in its two-answer form)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor


def yes_no_margin(
    logits: Float[Tensor, "B V"], yes: Sequence[int], no: Sequence[int]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The margin, log P(yes) - log P(no) in nats, and the mass, P(yes) + P(no) in [0, 1]; float32 whatever comes in.

    Args:
        logits: of the first answer token.
        yes: token ids that mean yes ("Yes", " yes", …); their probabilities add up.
        no: the same for no; no id is in both.
    """
    log_probs = logits.float().log_softmax(1)
    agree, deny = (log_probs[:, list(ids)].logsumexp(1) for ids in (yes, no))
    return agree - deny, torch.logaddexp(agree, deny).exp()


def yes_probability(margin: Float[Tensor, " B"], temperature: float | Float[Tensor, " B"] = 1.0) -> Float[Tensor, " B"]:
    """P(yes) / (P(yes) + P(no)) = sigmoid(margin / temperature), in [0, 1]."""
    return (margin / temperature).sigmoid()
