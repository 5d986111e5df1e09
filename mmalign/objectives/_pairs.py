"""From comparisons to a loss: shared noise, reference terms, reference point, and the preference loss over them.

Everything random or averaged over rows is fixed in `collect` (`compared`, `anchored`); `preference_loss` only runs the
policy, so the gradient is the same for any split of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.experience import Pairs
from mmalign.core.protocols import Mean, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import groups
from mmalign.objectives import _preference
from mmalign.objectives._lengths import Per, divisors, lengths
from mmalign.objectives._preference import LossType
from mmalign.objectives._replay import side_log_probs, side_terms, terms
from mmalign.objectives._scoring import means

BetaUnit = Literal["sum", "mean"]
Anchor = Literal["outputs", "mismatched"]

LEAD = ("sigmoid", "robust", "hinge", "ipo", "exo_pair", "discopop")  # losses of the lead z alone


@dataclass(frozen=True)
class Head:
    """A preference loss and its strength; `beta_unit` mean divides β by the event size, as diffusion code does.

    `also` adds further losses of the same log-ratios, by weight. `winner_weight` adds that much of the chosen output's
    own -log p, in the same unit, per `winner_per`: the margin alone is content when both outputs become less likely.
    `reference` False leaves log π_ref out; `length_normalised` divides each side by its tokens; `margin` is what z must
    exceed; `desirable` and `undesirable` weigh KTO's sides, and `anchor` says what its reference point is taken of.
    """

    loss_type: LossType | Literal["copg"]
    beta: float
    beta_unit: BetaUnit = "sum"
    label_smoothing: float = 0.0
    draws: int = 1
    winner_weight: float = 0.0
    rows: int = 16
    also: Mapping[Any, float] = field(default_factory=dict)
    winner_per: Per = "output"
    reference: bool = True
    length_normalised: bool = False
    margin: float = 0.0
    desirable: float = 1.0
    undesirable: float = 1.0
    anchor: Anchor = "outputs"

    @property
    def mixture(self) -> dict[str, float]:
        """All losses with their weights."""
        return {self.loss_type: 1.0, **{kind: w for kind, w in self.also.items() if kind != self.loss_type}}

    def faults(self) -> list[str]:
        """What is wrong with these values, for a run file."""
        rules = (
            (self.beta > 0, f"beta: {self.beta} must be positive."),
            (0 <= self.label_smoothing < 0.5, f"label_smoothing: {self.label_smoothing} must lie in [0, 0.5)."),
            (self.winner_weight >= 0, f"winner_weight: {self.winner_weight} must be at least 0."),
            (self.draws >= 1, f"draws: {self.draws} must be at least 1."),
            (self.rows >= 1, f"reference_rows: {self.rows} must be at least 1."),
            (self.loss_type not in self.also, f"also: names {self.loss_type}, which is the loss_type already."),
            (
                "exo_pair" not in self.mixture or self.label_smoothing > 0,
                "label_smoothing: exo_pair compares with a smoothed label; set it above 0, e.g. 1e-3.",
            ),
            (
                "orpo" not in self.mixture or (self.length_normalised and not self.reference),
                "loss_type: orpo is of mean log-probs; set reference: false and length_normalised: true.",
            ),
            (
                "kto" not in self.mixture or self.reference,
                "loss_type: kto judges against the reference; set reference: true.",
            ),
            (min(self.desirable, self.undesirable) >= 0, "desirable, undesirable: must be at least 0."),
            (
                "kto" not in self.mixture or not self.length_normalised,
                "length_normalised: kto's reference point is of whole outputs; set it to false.",
            ),
            *self._without_effect(),
        )
        return [message for fine, message in rules if not fine]

    def _without_effect(self) -> list[tuple[bool, str]]:
        """Options that nothing here would read."""
        kto, lead = "kto" in self.mixture, sorted({*self.mixture} & {*LEAD})
        return [
            (kto or self.desirable == self.undesirable == 1, "desirable, undesirable: are weights of loss_type kto."),
            (kto or self.anchor == "outputs", f"anchor: {self.anchor} is a reference point of loss_type kto."),
            (bool(lead) or not self.margin, f"margin: only {', '.join(LEAD)} have one; set it to 0."),
            (
                self.winner_weight > 0 or self.winner_per == "output",
                f"winner_per: {self.winner_per} divides a term that winner_weight: 0 leaves out.",
            ),
        ]

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
    squared = sorted({"ipo", "sppo_hard", "copg"} & {*head.mixture})
    if squared and probe and head.draws % 2:
        raise ConfigError(
            f"draws: {head.draws} is odd, and loss_type {squared[0]} squares a noisy estimate, which needs two "
            "independent halves to be unbiased; set an even number, e.g. draws: 2."
        )
    if head.length_normalised and probe:
        raise CapabilityError("length_normalised: divides by tokens, and these outputs have none; set it to false.")
    pairs = replace(pairs, probe=probe)
    if head.reference:
        with policy.reference():
            chosen, rejected = side_terms(policy, (pairs.chosen, pairs.rejected), probe, head.rows)
        pairs = replace(pairs, ref_chosen=chosen, ref_rejected=rejected)
    if head.winner_weight:
        norm = divisors(pairs.chosen, not probe, pairs.mask, head.winner_per, over_ranks)
        pairs = replace(pairs, divisor=norm)
    if "kto" not in head.mixture:
        return pairs
    if head.anchor == "mismatched":
        return mismatched(policy, pairs, head.rows, over_ranks)
    return anchored(policy, pairs, head.rows, over_ranks)


def anchored(policy: Any, pairs: Pairs, rows: int, over_ranks: Mean = one_process) -> Pairs:
    """The pairs with KTO's reference point: max(0, mean log-ratio of all valid outputs), under the current weights.

    Taken once per `collect`, over the rows of every process, so it is 0 until the policy has moved and does not depend
    on how the loss is split. Ethayarajh et al. 2024 take mismatched prompts and outputs in each micro-batch.
    """
    chosen, rejected = side_terms(policy, (pairs.chosen, pairs.rejected), pairs.probe, rows)
    ratio = chosen.sum(1) - _sum(pairs.ref_chosen) + rejected.sum(1) - _sum(pairs.ref_rejected)
    return _with_anchor(pairs, ratio, pairs.mask, 2.0, over_ranks)


def mismatched(policy: Any, pairs: Pairs, rows: int, over_ranks: Mean = one_process) -> Pairs:
    """As `anchored`, from outputs behind prompts that are not theirs: the chosen outputs, one prompt further on.

    KTO's published estimate of KL(π ‖ π_ref) (Ethayarajh et al. 2024, sec. 4.1), over all pairs that a process
    collects instead of one micro-batch. Equal prompts (text and media) do not count.
    """
    own = pairs.chosen.prompts
    others, number = [*own[1:], *own[:1]], groups(own)
    strange = number != number.roll(-1)
    moved = replace(pairs.chosen, prompts=others, group=pairs.chosen.group.roll(-1))
    mask = pairs.mask & strange.to(pairs.mask.device)
    now = terms(policy, moved, pairs.probe, rows).sum(1)
    with policy.reference():
        then = terms(policy, moved, pairs.probe, rows).sum(1)
    return _with_anchor(pairs, now - then, mask, 1.0, over_ranks)


def _with_anchor(pairs: Pairs, ratio: Tensor, mask: Tensor, each: float, over_ranks: Mean) -> Pairs:
    total = ratio.where(mask, 0.0).sum()
    total, count = over_ranks(torch.stack([total, each * mask.sum().to(total)]))
    point = (total / count.where(count > 0, 1.0)).clamp(min=0)
    return replace(pairs, anchor=point.expand(len(pairs)).clone())


def preference_loss(policy: Any, pairs: Pairs, head: Head) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
    """Σ weight × loss of these pairs, and the log-ratios behind it (in nats) as metrics."""
    chosen, rejected = side_log_probs(policy, (pairs.chosen, pairs.rejected), pairs.probe)
    up, down = _ratio(chosen, pairs.ref_chosen, head), _ratio(rejected, pairs.ref_rejected, head)
    beta = head.joint_beta(policy.event_size)
    value = torch.zeros_like(up[:, 0])
    for kind, weight in head.mixture.items():
        value = value + weight * row_loss(kind, *_scaled(up, down, pairs, head), beta, pairs, head)
    if head.winner_weight:
        own = chosen.sum(1) if pairs.divisor is None else chosen.sum(1) / pairs.divisor.to(chosen)
        value = value - head.winner_weight / head.unit(policy.event_size) * own
    margin = up.detach().sum(1) - down.detach().sum(1)
    metrics = means(
        pairs.mask,
        margin__mean=margin,
        margin__accuracy=_preference.agreement(margin, torch.ones_like(margin) if pairs.label is None else pairs.label),
        margin__chosen=up.sum(1),
        margin__rejected=down.sum(1),
        fit__chosen=chosen.sum(1) / policy.event_size,
        fit__rejected=rejected.sum(1) / policy.event_size,
    )
    if pairs.gap is not None:  # how far apart the reward saw the two sides
        metrics |= means(pairs.mask, pairs__gap=pairs.gap)
    if head.reference:
        metrics |= means(
            pairs.mask,
            fit__reference_chosen=_sum(pairs.ref_chosen) / policy.event_size,
            fit__reference_rejected=_sum(pairs.ref_rejected) / policy.event_size,
        )
    if pairs.weight is None:
        raise ValueError("the pairs have no weight; set it with `weigh` on the whole minibatch before splitting.")
    return (pairs.weight * value.where(pairs.mask, 0.0)).sum(), metrics


def skipped(pairs: Pairs) -> Mapping[str, Tensor]:
    """The share of pairs that say nothing: ties, and sides without a score."""
    return {"pairs/skipped": (~pairs.mask).float().mean()}


def row_loss(
    kind: str,
    up: Float[Tensor, "B T"],
    down: Float[Tensor, "B U"],
    beta: float,
    pairs: Pairs,
    head: Head,
) -> Float[Tensor, " B"]:
    """The loss of every pair from the log-ratio terms of both sides; only squared losses look at single draws."""
    good, bad = beta * up.sum(1), beta * down.sum(1)
    label = torch.ones_like(good) if pairs.label is None else pairs.label.to(good)
    label = (_preference.unflipped if kind == "robust" else _preference.smoothed)(label, head.label_smoothing)
    if kind == "kto":
        if pairs.anchor is None:
            raise ConfigError("loss_type kto needs pairs with an anchor; make them with `compared`.")
        return _preference.kto(good, bad, beta * pairs.anchor.to(good), label, (head.desirable, head.undesirable))
    if kind == "orpo":
        return beta * _preference.expected(_preference.orpo, up.sum(1), down.sum(1), label)
    if kind in ("nca_pair", "bco_pair", "apo_zero", "apo_down"):
        return _preference.expected(getattr(_preference, kind), good, bad, label)
    if kind in ("ipo", "copg", "sppo_hard"):
        return _squared(kind, beta * up, beta * down, pairs, label, head.margin)
    form = _preference.sigmoid if kind == "robust" else getattr(_preference, kind)
    return form(good - bad - head.margin, label)  # type: ignore[no-any-return]


def _squared(kind: str, up: Tensor, down: Tensor, pairs: Pairs, label: Tensor, margin: float) -> Tensor:
    """Losses of two independent estimates, or of the exact log-ratio twice."""
    split = _preference.halves if pairs.probe else _twice
    good, bad = split(up), split(down)
    if kind == "sppo_hard":
        return _preference.sppo_hard(good, bad, label)
    one, other = good[0] - bad[0] - margin, good[1] - bad[1] - margin
    if kind == "ipo":
        return _preference.ipo(one, other, label)
    if pairs.gap is None:
        raise ConfigError("copg needs pairs with the gap of their rewards.")
    return _preference.copg(one, other, pairs.gap.to(one))


def _twice(terms: Tensor) -> tuple[Tensor, Tensor]:
    return terms.sum(1), terms.sum(1)


def _ratio(log_prob: Tensor, reference: Tensor | None, head: Head) -> Tensor:
    if not head.reference:
        return log_prob
    assert reference is not None, "pairs without reference terms; make them with `compared`"
    return log_prob - reference


def _scaled(up: Tensor, down: Tensor, pairs: Pairs, head: Head) -> tuple[Tensor, Tensor]:
    if not head.length_normalised:
        return up, down
    exact = not pairs.probe
    return up / lengths(pairs.chosen, exact).to(up)[:, None], down / lengths(pairs.rejected, exact).to(down)[:, None]


def _sum(reference: Tensor | None) -> Float[Tensor, " B"]:
    assert reference is not None, "pairs without reference terms; make them with `compared`"
    return reference.sum(1)


__all__ = ["Anchor", "BetaUnit", "Head", "anchored", "compared", "mismatched", "preference_loss", "row_loss", "skipped"]
