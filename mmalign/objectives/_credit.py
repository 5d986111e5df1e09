"""How much single steps of two compared outputs count: credit in the margin, and rewards per step beside it.

Both are read in `collect` and are data from then on, so the gradient does not depend on how pairs are split. A step is
a token of a text, or a noise draw of a picture or a sound, for which the readers share the pair's probe.

cDPO (Lin et al. 2024, arXiv 2411.19943): two models, of right and of wrong outputs, find critical tokens,

    s_t = softmax((1 + κ) logits⁺ - κ logits⁻)[y_t]
    ρ_w = Σ_t ρ_t(y_w)  or  Σ_t s_t ρ_t(y_w),   ρ_l = Σ_t (1 - s_t) ρ_t(y_l)

the sum of the paper; its public code averages a log σ per position, padding included. Where no logits exist, and by
`kind: ratio` everywhere (ours), s_t = σ(κ (log p⁺ - log p⁻)).

T-REG (Zhou et al. 2024, arXiv 2412.02685): the model itself under a better and a worse prompt x⁺, x⁻ rewards tokens,

    r̂_t = σ(log π(y_t | x⁺, y_<t) - log π(y_t | x⁻, y_<t)) - 1/2
    L = L_DPO + α w (L_reg(y_w) + L_reg(y_l)),   L_reg(y) = -Σ_t β r̂_t log π_θ(y_t),   w = σ(β ρ_l - β ρ_w)

with w and r̂ without gradient. Here the reference reads r̂, so that it is the same all the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.capabilities import offers
from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Pairs
from mmalign.core.options import NotNegative, Positive, must, refuse
from mmalign.core.protocols import DensityPolicy, VocabularyPolicy
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives._rollouts import recompute_log_prob
from mmalign.rewards.models.reader import Make, Reader, same_steps
from mmalign.rewards.models.template import Template

Steps = Float[Tensor, "B T"]


@dataclass
class Credit:
    """Two readers that say which steps of a rejected (or of both) outputs matter.

    Args:
        right: what is likelier for right outputs: a run directory, a language model's folder, or {adapter, policy}.
        wrong: what is likelier for wrong ones.
        kind: "contrast", cDPO's estimate over the whole vocabulary (texts); "ratio", of the two log-probs alone.
        contrast: κ.
        sides: whose terms are weighed: those of the rejected output (the public default), or of both.
        rows: outputs per forward pass of a reader.
    """

    right: str | dict[str, Any]
    wrong: str | dict[str, Any]
    kind: Literal["contrast", "ratio"] = "contrast"
    contrast: Positive = 1.0
    sides: Literal["rejected", "both"] = "rejected"
    rows: int = 16

    def __post_init__(self) -> None:
        refuse(
            must(self.contrast > 0, f"credit.contrast: {self.contrast} must be positive."),
            must(self.rows >= 1, f"credit.rows: {self.rows} must be at least 1."),
        )


@dataclass
class TokenReward:
    """T-REG's term.

    Args:
        better: the prompt under which good steps are likelier, with {prompt} and columns of the data in braces.
        worse: the prompt under which bad ones are.
        weight: α; 0.1, 0.25 or 0.5 in the paper.
        gated: whether pairs that the policy has right already count less, by w; false: w = 1.
    """

    better: str = "{prompt}"
    worse: str = ""
    weight: NotNegative = 0.25
    gated: bool = True
    templates: tuple[Template, Template] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse(
            must(bool(self.worse), "token_reward.worse: is empty; write the worse prompt, e.g. '{worse}' of a column."),
            must(self.better != self.worse, "token_reward.worse: is the better prompt; they must differ."),
            must(self.weight >= 0, f"token_reward.weight: {self.weight} must be at least 0."),
        )
        self.templates = (Template(self.better), Template(self.worse))


def contrastive_estimate(
    right: Float[Tensor, "*rows V"], wrong: Float[Tensor, "*rows V"], tokens: Int[Tensor, "*rows"], contrast: float
) -> Float[Tensor, "*rows"]:
    """s of given tokens, softmax((1 + κ) right - κ wrong)[token], in [0, 1]; a low one is critical."""
    mixed = ((1 + contrast) * right - contrast * wrong).log_softmax(-1)
    return mixed.gather(-1, tokens[..., None])[..., 0].exp()


def ratio_estimate(right: Steps, wrong: Steps, contrast: float) -> Steps:
    """s of given steps, σ(κ (log p⁺ - log p⁻)), in (0, 1)."""
    return (contrast * (right - wrong)).sigmoid()


def step_reward(better: Steps, worse: Steps) -> Steps:
    """T-REG's r̂ of given steps, σ(log p(·|x⁺) - log p(·|x⁻)) - 1/2, in [-1/2, 1/2]."""
    return (better - worse).sigmoid() - 0.5


def dense_loss(log_prob: Steps, reward: Steps, beta: float | Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """T-REG's L_reg of each output, -β Σ_t r̂_t log π_θ(y_t)."""
    return -beta * (reward.to(log_prob) * log_prob).sum(1)


def dense_term(
    log_probs: tuple[Tensor, Tensor],
    log_ratios: tuple[Tensor, Tensor],
    beta: float | Float[Tensor, " B"],
    pairs: Pairs,
    options: TokenReward,
) -> Float[Tensor, " B"]:
    """α w (L_reg(chosen) + L_reg(rejected)) of each pair, whose step rewards `read_token_rewards` added."""
    assert pairs.dense_chosen is not None and pairs.dense_rejected is not None, "pairs without step rewards"
    up, down = (ratio.detach().sum(1) for ratio in log_ratios)
    gate = (beta * (down - up)).sigmoid() if options.gated else 1.0
    sides = dense_loss(log_probs[0], pairs.dense_chosen, beta) + dense_loss(log_probs[1], pairs.dense_rejected, beta)
    return options.weight * gate * sides


def read_token_rewards(policy: DensityPolicy, pairs: Pairs, options: TokenReward, rows: int) -> Pairs:
    """The pairs with T-REG's step rewards of both sides, by the reference under the better and the worse prompt.

    Raises:
        CapabilityError: a row lacks a column that a template names.
    """

    def read(side: Rollout) -> Tensor:
        tables = []
        for template in options.templates:
            _require(template, side.prompts)
            prompts = [replace(prompt, text=template.filled(prompt)) for prompt in side.prompts]
            tables.append(recompute_log_prob(policy, replace(side, prompts=prompts), pairs.probe, rows))
        return step_reward(*tables)

    with policy.reference():
        return replace(pairs, dense_chosen=read(pairs.chosen), dense_rejected=read(pairs.rejected))


def _require(template: Template, prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        if absent := [name for name in template.columns if prompt.meta.get(name) in (None, "")]:
            place = prompt.place or f"'{prompt.text[:40]}'"
            raise CapabilityError(f"{place}: token_reward names the column '{absent[0]}', which this row has not.")


class CreditReaders:
    """The two readers of `Credit`, loaded at their first use."""

    def __init__(self, make: Make | None, options: Credit) -> None:
        self.options = options
        self.right = Reader(make, options.right, "credit.right")
        self.wrong = Reader(make, options.wrong, "credit.wrong")

    def prepare(self) -> None:
        """Load both."""
        _ = self.right.loaded, self.wrong.loaded

    def weighed(self, pairs: Pairs) -> Pairs:
        """The pairs with credit: 1 - s of the rejected output's steps, and s of the chosen one's where both count."""
        lost = 1 - self.estimate(pairs.rejected, pairs.probe)
        won = self.estimate(pairs.chosen, pairs.probe) if self.options.sides == "both" else None
        return replace(pairs, credit_chosen=won, credit_rejected=lost)

    def estimate(self, rollout: Rollout, probe: dict[str, Tensor]) -> Steps:
        """s of every step of given outputs (B, T), as the policy counts steps; 0 where it is masked.

        Raises:
            CapabilityError: readers that count other steps than the policy, or have no vocabulary for `contrast`.
        """
        options = self.options
        sides = [(reader, self._as_read(reader, rollout)) for reader in (self.right, self.wrong)]
        if options.kind == "ratio":
            right, wrong = (reader.log_prob(side, probe, options.rows) for reader, side in sides)
            same_steps(right, wrong, ("credit.right", "credit.wrong"))
            estimate = ratio_estimate(right, wrong, options.contrast)
        else:
            estimate = torch.cat(
                [self._contrast(sides, slice(i, i + options.rows)) for i in range(0, len(rollout), options.rows)]
            )
        estimate = estimate.to(rollout.group.device)
        return estimate if rollout.mask is None else estimate.where(rollout.mask, 0.0)

    def _contrast(self, sides: Sequence[tuple[Reader, Rollout]], rows: slice) -> Steps:
        tables = []
        for reader, side in sides:
            if not offers(reader.loaded, VocabularyPolicy):
                raise CapabilityError(
                    "credit.kind: contrast is over a vocabulary, which these outputs have not; set ratio."
                )
            with torch.no_grad():
                tables.append(reader.loaded.step_logits(side[rows]))  # type: ignore[attr-defined]
        if tables[0].shape != tables[1].shape:
            raise CapabilityError("credit: right and wrong have other vocabularies; name two of one family.")
        return contrastive_estimate(tables[0], tables[1], sides[0][1][rows].trajectory["tokens"], self.options.contrast)

    @staticmethod
    def _as_read(reader: Reader, rollout: Rollout) -> Rollout:
        """The outputs in the reader's own steps, which must be the policy's; latents are taken as they are."""
        if "tokens" not in rollout.trajectory:
            return rollout
        read = reader.read(rollout.prompts, rollout.output)
        same = read.trajectory["tokens"].shape == rollout.trajectory["tokens"].shape
        if not same or not torch.equal(read.trajectory["tokens"].cpu(), rollout.trajectory["tokens"].cpu()):
            raise CapabilityError(
                f"{reader.at}: cuts texts into other tokens than the policy; name a model of its family."
            )
        return read


__all__ = [
    "Credit",
    "CreditReaders",
    "TokenReward",
    "contrastive_estimate",
    "dense_loss",
    "dense_term",
    "ratio_estimate",
    "read_token_rewards",
    "step_reward",
]
