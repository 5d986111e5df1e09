"""From comparisons to a loss: shared noise, reference terms, reference point, and the preference loss over them.

Everything random or averaged over rows is fixed in `collect` (`compared`, `anchored`); `preference_loss` only runs the
policy, so the gradient is the same for any split of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Mean, one_process
from mmalign.core.types import Pairs
from mmalign.objectives import _preference
from mmalign.objectives._preference import LossType
from mmalign.objectives._replay import terms
from mmalign.objectives._scoring import means

BetaUnit = Literal["sum", "mean"]


@dataclass(frozen=True)
class Head:
    """A preference loss and its strength; `beta_unit` mean divides β by the event size, as diffusion code does.

    `winner_weight` adds that much of the chosen output's own -log p, in the same unit: the margin alone is content when
    both outputs become less likely.
    """

    loss_type: LossType
    beta: float
    beta_unit: BetaUnit = "sum"
    label_smoothing: float = 0.0
    draws: int = 1
    winner_weight: float = 0.0
    rows: int = 16

    def faults(self) -> list[str]:
        """What is wrong with these values, for a run file."""
        rules = (
            (self.beta > 0, f"beta: {self.beta} must be positive."),
            (0 <= self.label_smoothing < 0.5, f"label_smoothing: {self.label_smoothing} must lie in [0, 0.5)."),
            (self.winner_weight >= 0, f"winner_weight: {self.winner_weight} must be at least 0."),
            (self.draws >= 1, f"draws: {self.draws} must be at least 1."),
            (self.rows >= 1, f"reference_rows: {self.rows} must be at least 1."),
        )
        return [message for fine, message in rules if not fine]

    def joint_beta(self, event_size: int) -> float:
        """β per nat of the joint log-prob."""
        return self.beta / self.unit(event_size)

    def unit(self, event_size: int) -> float:
        """Nats of the joint in one of this head's."""
        return float(event_size) if self.beta_unit == "mean" else 1.0


def compared(policy: Any, pairs: Pairs, head: Head, rng: torch.Generator, over_ranks: Mean = one_process) -> Pairs:
    """The pairs with one probe for both sides and the reference, the reference's terms and, for KTO, the anchor.

    Raises ConfigError where a squared loss would have to square a single noisy draw.
    """
    probe = policy.probe(pairs.chosen, rng, head.draws)
    if head.loss_type == "ipo" and probe and head.draws % 2:
        raise ConfigError(
            f"draws: {head.draws} is odd, and loss_type ipo squares a noisy estimate, which needs two independent "
            "halves to be unbiased; set an even number, e.g. draws: 2."
        )
    with policy.reference():
        chosen = terms(policy, pairs.chosen, probe, head.rows)
        rejected = terms(policy, pairs.rejected, probe, head.rows)
    pairs = replace(pairs, probe=probe, ref_chosen=chosen, ref_rejected=rejected)
    return anchored(policy, pairs, head.rows, over_ranks) if head.loss_type == "kto" else pairs


def anchored(policy: Any, pairs: Pairs, rows: int, over_ranks: Mean = one_process) -> Pairs:
    """The pairs with KTO's reference point: max(0, mean log-ratio of all valid outputs), under the current weights.

    Taken once per `collect`, over the rows of every process, so it is 0 until the policy has moved and does not depend
    on how the loss is split. Ethayarajh et al. 2024 take mismatched prompts and outputs in each micro-batch.
    """
    chosen = terms(policy, pairs.chosen, pairs.probe, rows).sum(1) - _sum(pairs.ref_chosen)
    rejected = terms(policy, pairs.rejected, pairs.probe, rows).sum(1) - _sum(pairs.ref_rejected)
    total = (chosen + rejected).where(pairs.mask, 0.0).sum()
    total, count = over_ranks(torch.stack([total, 2 * pairs.mask.sum().to(total)]))
    point = (total / count.where(count > 0, 1.0)).clamp(min=0)
    return replace(pairs, anchor=point.expand(len(pairs)).clone())


def preference_loss(policy: Any, pairs: Pairs, head: Head) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
    """Σ weight × loss of these pairs, and the log-ratios behind it (in nats) as metrics."""
    chosen, rejected = policy.log_prob(pairs.chosen, pairs.probe), policy.log_prob(pairs.rejected, pairs.probe)
    up, down = chosen - pairs.ref_chosen, rejected - pairs.ref_rejected
    beta = head.joint_beta(policy.event_size)
    label = torch.ones_like(up[:, 0]) if pairs.label is None else pairs.label.to(up)
    value = row_loss(head.loss_type, up, down, beta, pairs, _preference.smoothed(label, head.label_smoothing))
    if head.winner_weight:
        value = value - head.winner_weight / head.unit(policy.event_size) * chosen.sum(1)
    margin = up.detach().sum(1) - down.detach().sum(1)
    metrics = means(
        pairs.mask,
        margin__mean=margin,
        margin__accuracy=(margin > 0).float() + 0.5 * (margin == 0).float(),
        margin__chosen=up.sum(1),
        margin__rejected=down.sum(1),
        fit__chosen=chosen.sum(1) / policy.event_size,
        fit__rejected=rejected.sum(1) / policy.event_size,
        fit__reference_chosen=_sum(pairs.ref_chosen) / policy.event_size,
        fit__reference_rejected=_sum(pairs.ref_rejected) / policy.event_size,
    )
    if pairs.gap is not None:  # how far apart the reward saw the two sides
        metrics |= means(pairs.mask, pairs__gap=pairs.gap)
    metrics["pairs/skipped"] = (~pairs.mask).float().mean()
    if pairs.weight is None:
        raise ValueError("the pairs have no weight; set it with `weigh` on the whole minibatch before splitting.")
    return (pairs.weight * value.where(pairs.mask, 0.0)).sum(), metrics


def row_loss(
    kind: LossType,
    up: Float[Tensor, "B T"],
    down: Float[Tensor, "B U"],
    beta: float,
    pairs: Pairs,
    label: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """The loss of every pair from the log-ratio terms of both sides; only `ipo` looks at single draws."""
    if kind == "kto":
        if pairs.anchor is None:
            raise ConfigError("loss_type kto needs pairs with an anchor; make them with `compared`.")
        return _preference.kto(beta * up.sum(1), beta * down.sum(1), beta * pairs.anchor.to(up), label)
    if kind == "ipo" and pairs.probe:
        one, other = _preference.halves(beta * (up - down))
        return _preference.ipo(one, other, label)
    z = beta * (up.sum(1) - down.sum(1))
    return _preference.ipo(z, z, label) if kind == "ipo" else getattr(_preference, kind)(z, label)


def _sum(reference: Tensor | None) -> Float[Tensor, " B"]:
    assert reference is not None, "pairs without reference terms; make them with `compared`"
    return reference.sum(1)


__all__ = ["BetaUnit", "Head", "anchored", "compared", "preference_loss", "row_loss"]
