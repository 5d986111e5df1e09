"""Pairs of outputs and the preference loss over them: given comparisons, shared noise, reference terms, loss.

Everything random or averaged over rows is fixed in `collect` (`add_reference_terms`); `preference_loss` only runs the
policy, so the gradient is the same for any split of the rows. The pure losses are in `_preferences.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.experience import Pairs
from mmalign.core.metrics import Average
from mmalign.core.options import AtLeastOne, NotNegative, Share, must, requires
from mmalign.core.protocols import DensityPolicy, Mean, Metrics, ScorePolicy, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Preference
from mmalign.objectives import _preferences as preferences
from mmalign.objectives._anchor import add_mismatched_reference_point, add_reference_point
from mmalign.objectives._credit import TokenReward, dense_term, read_token_rewards
from mmalign.objectives._preferences import OF_LEAD, OF_SIDES, SQUARED, LossType, labels
from mmalign.objectives._rollouts import (
    batch_outputs,
    event_size,
    masked_means,
    recompute_side_log_probs,
    reference_sum,
    side_log_probs,
)
from mmalign.objectives._weights import Per, RowsAlike, log_prob_divisors, token_counts, weighted_sum

BetaUnit = Literal["sum", "mean"]
Anchor = Literal["outputs", "mismatched"]
WITH_MARGIN = ("sigmoid", "robust", "hinge", "ipo", "exo_pair", "discopop")  # losses of the lead z alone


@dataclass(kw_only=True)
class PreferenceOptions:
    """A preference loss and its strength: the options that DPO offers, of which DRAGON and CoPG set some.

    Args:
        loss_type, also: the preference loss, and further ones of the same log-ratios by weight.
        beta, beta_unit: its strength, per nat of the joint ("sum"), or in the published unit of diffusion ("mean": over
            the event size).
        label_smoothing: the share of comparisons that are taken to be wrong, in [0, 0.5).
        draws: noise draws per output (an even number for squared losses).
        winner_weight, winner_per: adds that much of the chosen output's own -log p, per output, token, or token of the
            batch: the margin alone is content when both outputs become less likely.
        reference: judge log-ratios to the frozen reference, or (false) log-probs.
        length_normalised: per token of each side.
        margin: by how much z must exceed 0 (SimPO's γ).
        desirable, undesirable, anchor: KTO's weights, and what its reference point is taken of.
        token_reward: a term of rewards per token that two prompts of one model give (T-REG).
        reference_rows: bounds the rows per no-gradient forward.
    """

    loss_type: LossType | Literal["copg"] = "sigmoid"
    beta: NotNegative = 0.1
    beta_unit: BetaUnit = "sum"
    label_smoothing: Share = 0.0
    draws: AtLeastOne = 1
    winner_weight: NotNegative = 0.0
    winner_per: Per = "output"
    also: dict[LossType, float] = field(default_factory=dict)
    reference: bool = True
    length_normalised: bool = False
    margin: NotNegative = 0.0
    desirable: NotNegative = 1.0
    undesirable: NotNegative = 1.0
    anchor: Anchor = "outputs"
    token_reward: TokenReward | None = None
    reference_rows: AtLeastOne = 16

    @property
    def mixture(self) -> dict[str, float]:
        """The weight of each loss by its name: 1 of `loss_type`, and those of `also`."""
        return {self.loss_type: 1.0, **{kind: w for kind, w in self.also.items() if kind != self.loss_type}}

    def broken_rules(self) -> list[str]:
        """Return a sentence for everything that is wrong with these values."""
        orpo, kto = "orpo" in self.mixture, "kto" in self.mixture
        return [
            *must(self.beta > 0, f"beta: {self.beta} must be positive."),
            *must(0 <= self.label_smoothing < 0.5, f"label_smoothing: {self.label_smoothing} must lie in [0, 0.5)."),
            *must(self.winner_weight >= 0, f"winner_weight: {self.winner_weight} must be at least 0."),
            *must(self.draws >= 1, f"draws: {self.draws} must be at least 1."),
            *must(self.reference_rows >= 1, f"reference_rows: {self.reference_rows} must be at least 1."),
            *must(self.loss_type not in self.also, f"also: names {self.loss_type}, which is the loss_type already."),
            *requires(
                "exo_pair" in self.mixture,
                self.label_smoothing > 0,
                "label_smoothing: exo_pair compares with a smoothed label; set it above 0, e.g. 1e-3.",
            ),
            *requires(
                orpo,
                self.length_normalised and not self.reference,
                "loss_type: orpo is of mean log-probs; set reference: false and length_normalised: true.",
            ),
            *requires(kto, self.reference, "loss_type: kto judges against the reference; set reference: true."),
            *must(min(self.desirable, self.undesirable) >= 0, "desirable, undesirable: must be at least 0."),
            *requires(
                kto,
                not self.length_normalised,
                "length_normalised: kto's reference point is of whole outputs; set it to false.",
            ),
            *self._without_effect(kto),
        ]

    def _without_effect(self, kto: bool) -> list[str]:
        """A sentence for every option that these losses would not read."""
        weighted, lead = self.desirable != 1 or self.undesirable != 1, {*self.mixture} & {*WITH_MARGIN}
        return [
            *requires(weighted, kto, "desirable, undesirable: are weights of loss_type kto."),
            *requires(self.anchor != "outputs", kto, f"anchor: {self.anchor} is a reference point of loss_type kto."),
            *requires(self.margin != 0, bool(lead), f"margin: only {', '.join(WITH_MARGIN)} have one; set it to 0."),
            *requires(
                self.winner_per != "output",
                self.winner_weight > 0,
                f"winner_per: {self.winner_per} divides a term that winner_weight: 0 leaves out.",
            ),
        ]

    def joint_beta(self, event_size: int) -> float:
        """β per nat of the joint log-prob of an output of `event_size` dimensions."""
        return self.beta / self.nats(event_size)

    def nats(self, event_size: int) -> float:
        """Return how many nats of the joint one unit of β, and of the winner's term, is of."""
        return float(event_size) if self.beta_unit == "mean" else 1.0


def pairs_of_preferences(policy: DensityPolicy | ScorePolicy, batch: Sequence[Any], who: str, instead: str) -> Pairs:
    """Encode the chosen and rejected outputs of given comparisons as the policy's rollouts.

    Args:
        policy: encodes the outputs.
        batch: preferences.
        who: the objective that needs them, for the error.
        instead: what to set where the batch is not of preferences.

    Raises:
        DataError: rows that are no preferences, or outputs that do not batch.
    """
    if others := [type(row).__name__ for row in batch if not isinstance(row, Preference)]:
        raise DataError(f"{who} reads preferences, got {others[0]}; set {instead}.")
    prompts = [preference.prompt for preference in batch]
    chosen = policy.observe(prompts, batch_outputs([preference.chosen for preference in batch], "chosen"))
    rejected = policy.observe(prompts, batch_outputs([preference.rejected for preference in batch], "rejected"))
    device = chosen.group.device
    mask = torch.ones(len(prompts), dtype=torch.bool, device=device)
    return Pairs(chosen=chosen, rejected=rejected, mask=mask, label=labels(batch, device))


def rows_read(online: str) -> frozenset[str]:
    """Return what batches hold for an objective that compares: preferences where it is offline, else prompts."""
    return frozenset({"preferences"} if online == "off" else {"prompts"})


def add_reference_terms(
    policy: DensityPolicy,
    pairs: Pairs,
    options: PreferenceOptions,
    rng: torch.Generator,
    over_ranks: Mean = one_process,
) -> Pairs:
    """Add one probe for both sides and the reference, the reference's log-prob terms and, for KTO, the reference point.

    Raises ConfigError where a squared loss would have to square a single noisy draw.
    """
    probe = policy.probe(pairs.chosen, rng, options.draws)
    squared = sorted({*SQUARED} & {*options.mixture})
    if squared and probe and options.draws % 2:
        raise ConfigError(
            f"draws: {options.draws} is odd, and loss_type {squared[0]} squares a noisy estimate, which needs two "
            "independent halves to be unbiased; set an even number, e.g. draws: 2."
        )
    if options.length_normalised and probe:
        raise CapabilityError("length_normalised: divides by tokens, and these outputs have none; set it to false.")
    pairs, rows = replace(pairs, probe=probe), options.reference_rows
    if options.reference:
        with policy.reference():
            chosen, rejected = recompute_side_log_probs(policy, (pairs.chosen, pairs.rejected), probe, rows)
        pairs = replace(pairs, ref_chosen=chosen, ref_rejected=rejected)
    if options.winner_weight:
        divisor = log_prob_divisors(pairs.chosen, not probe, pairs.mask, options.winner_per, over_ranks)
        pairs = replace(pairs, divisor=divisor)
    if options.token_reward is not None:
        pairs = read_token_rewards(policy, pairs, options.token_reward, rows)
    if "kto" not in options.mixture:
        return pairs
    add_point = add_mismatched_reference_point if options.anchor == "mismatched" else add_reference_point
    return add_point(policy, pairs, rows, over_ranks)


def preference_loss(
    policy: DensityPolicy, pairs: Pairs, options: PreferenceOptions
) -> tuple[Float[Tensor, ""], Metrics]:
    """Σ weight × loss of these pairs, and the log-ratios behind it (in nats) as metrics."""
    chosen, rejected = side_log_probs(policy, (pairs.chosen, pairs.rejected), pairs.probe)
    up, down = _log_ratio(chosen, pairs.ref_chosen, options), _log_ratio(rejected, pairs.ref_rejected, options)
    size = event_size(policy, pairs.chosen)
    beta: float | Tensor = options.joint_beta(size)
    beta = beta if pairs.beta is None else beta * pairs.beta.to(up)
    value = torch.zeros_like(up[:, 0])
    credited = _per_token(_credited(up, pairs.credit_chosen), _credited(down, pairs.credit_rejected), pairs, options)
    for kind, weight in options.mixture.items():
        value = value + weight * row_loss(kind, *credited, beta, pairs, options)
    if options.token_reward is not None:
        value = value + dense_term((chosen, rejected), (up, down), beta, pairs, options.token_reward)
    if options.winner_weight:
        own = chosen.sum(1) if pairs.divisor is None else chosen.sum(1) / pairs.divisor.to(chosen)
        value = value - options.winner_weight / options.nats(size) * own
    metrics = _metrics(pairs, (chosen, rejected), (up.detach(), down.detach()), size)
    return weighted_sum(pairs, value), metrics


def _metrics(
    pairs: Pairs, log_probs: tuple[Tensor, Tensor], log_ratios: tuple[Tensor, Tensor], size: int
) -> dict[str, Average]:
    chosen, rejected = log_ratios[0].sum(1), log_ratios[1].sum(1)
    label = torch.ones_like(chosen) if pairs.label is None else pairs.label
    values = {
        "margin/mean": chosen - rejected,
        "margin/accuracy": preferences.pair_accuracy(chosen - rejected, label),
        "margin/chosen": chosen,
        "margin/rejected": rejected,
        "fit/chosen": log_probs[0].sum(1) / size,
        "fit/rejected": log_probs[1].sum(1) / size,
    }
    if pairs.gap is not None:
        values["pairs/gap"] = pairs.gap
    if pairs.ref_chosen is not None:
        values["fit/reference_chosen"] = reference_sum(pairs.ref_chosen) / size
        values["fit/reference_rejected"] = reference_sum(pairs.ref_rejected) / size
    return masked_means(pairs.mask, values)


def share_skipped(pairs: Pairs) -> dict[str, Tensor]:
    """Return the share of pairs that say nothing: ties, and sides without a score."""
    return {"pairs/skipped": (~pairs.mask).float().mean()}


def row_loss(
    kind: str,
    up: Float[Tensor, "B T"],
    down: Float[Tensor, "B U"],
    beta: float | Float[Tensor, " B"],
    pairs: Pairs,
    options: PreferenceOptions,
) -> Float[Tensor, " B"]:
    """The loss of every pair from the log-ratio terms of both sides; only squared losses look at single draws.

    `beta` is one number, or one of each pair.
    """
    good, bad = beta * up.sum(1), beta * down.sum(1)
    label = torch.ones_like(good) if pairs.label is None else pairs.label.to(good)
    label = (preferences.unflip_labels if kind == "robust" else preferences.smooth_labels)(
        label, options.label_smoothing
    )
    if kind == "kto":
        if pairs.anchor is None:
            raise ConfigError("loss_type kto needs pairs with an anchor; make them with `add_reference_terms`.")
        weights = (options.desirable, options.undesirable)
        return preferences.kto(good, bad, beta * pairs.anchor.to(good), label, weights)
    if kind == "orpo":
        return beta * preferences.expected_over_label(preferences.orpo, up.sum(1), down.sum(1), label)
    if kind in OF_SIDES:
        return preferences.expected_over_label(OF_SIDES[kind], good, bad, label)
    if kind in SQUARED:
        each = beta[:, None] if isinstance(beta, Tensor) else beta
        return _squared(kind, each * up, each * down, pairs, label, options.margin)
    return OF_LEAD[kind](good - bad - options.margin, label)


def _squared(kind: str, up: Tensor, down: Tensor, pairs: Pairs, label: Tensor, margin: float) -> Tensor:
    """Losses of two independent estimates, or of the exact log-ratio twice."""
    split = preferences.halves if pairs.probe else _twice
    good, bad = split(up), split(down)
    if kind == "sppo_hard":
        return preferences.sppo_hard(good, bad, label)
    one, other = good[0] - bad[0] - margin, good[1] - bad[1] - margin
    if kind == "ipo":
        return preferences.ipo(one, other, label)
    if pairs.gap is None:
        raise ConfigError("copg needs pairs with the gap of their rewards.")
    return preferences.copg(one, other, pairs.gap.to(one))


def _twice(terms: Tensor) -> tuple[Tensor, Tensor]:
    return terms.sum(1), terms.sum(1)


def _log_ratio(log_prob: Tensor, reference: Tensor | None, options: PreferenceOptions) -> Tensor:
    if not options.reference:
        return log_prob
    assert reference is not None, "pairs without reference terms; make them with `add_reference_terms`"
    return log_prob - reference


def _credited(terms: Tensor, credit: Tensor | None) -> Tensor:
    return terms if credit is None else terms * credit.to(terms)


def _per_token(up: Tensor, down: Tensor, pairs: Pairs, options: PreferenceOptions) -> tuple[Tensor, Tensor]:
    if not options.length_normalised:
        return up, down
    chosen, rejected = (token_counts(side, exact=not pairs.probe) for side in (pairs.chosen, pairs.rejected))
    return up / chosen.to(up)[:, None], down / rejected.to(down)[:, None]


@dataclass
class PreferenceObjective(RowsAlike, ABC):
    """An objective that makes pairs of outputs and trains by a preference loss over them."""

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    @property
    @abstractmethod
    def preference(self) -> PreferenceOptions:
        """The preference loss and its strength."""

    def with_reference(self, policy: DensityPolicy, pairs: Pairs, rng: torch.Generator) -> Pairs:
        """The pairs with what the loss needs and `collect` fixes: noise, and what the reference says of both sides."""
        return add_reference_terms(policy, pairs, self.preference, rng, self.over_ranks)

    def counts(self, experience: Pairs) -> Metrics:
        """Return "pairs/skipped", the share in [0, 1] of pairs that say nothing: ties, and sides without a score."""
        return share_skipped(experience)

    def loss(self, policy: DensityPolicy, chunk: Pairs, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × loss of these pairs, a scalar with gradient, and its metrics; see `preference_loss`."""
        return preference_loss(policy, chunk, self.preference)


__all__ = [
    "Anchor",
    "BetaUnit",
    "PreferenceObjective",
    "PreferenceOptions",
    "add_reference_terms",
    "pairs_of_preferences",
    "preference_loss",
    "row_loss",
    "rows_read",
    "share_skipped",
]
