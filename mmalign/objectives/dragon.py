"""DRAGON: contrast a better with a worse set of the policy's own outputs, for rewards of rows and of whole sets.

Paper: Bai et al. 2025, "DRAGON: Distributional Rewards Optimize Diffusion Generative Models" (arXiv 2504.15217, TMLR).

    sample D₁, D₂ ~ π_θ for the same prompts;  build D⁺, D⁻ with r(D⁺) > r(D⁻);  lower KL(D⁺ ‖ π_θ), raise KL(D⁻ ‖ π_θ)
    by the Diffusion-DPO or Diffusion-KTO loss against the frozen reference

| symbol | here | meaning |
|---|---|---|
| D₁, D₂ | `first`, `second` | `samples_per_prompt` outputs of each prompt, half of them in each set |
| D⁺, D⁻ | `Pairs.chosen`, `rejected` | positive and negative demonstrations |
| r | `reward` | of a row (aesthetics, per-song FAD), or of a set (FAD, Vendi): a `SetReward` |

| builder | for | D⁺ and D⁻ |
|---|---|---|
| greedy_swap | set rewards | the better set, improved by exchanging outputs of the same prompt (`_selection.py`) |
| tournament | set rewards | the same with one pair per prompt: better sets meet better ones, worse ones worse (ours) |
| pair | row rewards | the better and the worse of every two outputs of a prompt |
| pool | row rewards, unpaired | the top and bottom half of all outputs, whatever their prompts |

`pair` and `pool` also take a set reward and then compare its rows' influence (leave-one-out); choosing many rows by
influence at once may miss the better set, which is why greedy_swap exists. A `pool` mixes prompts: where one prompt's
outputs all score higher than another's, its halves say which prompt is easier, not which output is better.

Reconstruction: the body of the paper was out of reach. That D⁺/D⁻ start from two sets, the contrast and both losses are
the paper's; the swap test (`accept`), the number of `sweeps`, the defaults, and pairing by neighbours for more than two
samples are ours. Left out: sets larger than this process's batch (a set is what one process collects in one step).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from mmalign.core.experience import Pairs
from mmalign.core.options import AtLeastOne, NotNegative, must, refuse, requires
from mmalign.core.protocols import DensityPolicy
from mmalign.core.setting import Setting
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives._pairs import BetaUnit, PreferenceObjective, PreferenceOptions
from mmalign.objectives._rollouts import sample_groups, score_rollout
from mmalign.objectives._selection import (
    Accept,
    EmbeddedOutputs,
    SetMember,
    halves_of_pool,
    neighbours,
    pairs_of_rows,
    set_rewards,
    tournament,
)


@dataclass
class DRAGON(PreferenceObjective):
    """Sample, build a better and a worse set, prefer the better one.

    Args:
        reward: of rows or of sets.
        builder: how the better and the worse set are made, see the table above.
        samples_per_prompt: outputs per prompt, an even number: half of them in each set.
        sweeps: how often greedy_swap goes over all prompts.
        accept: which exchanges of outputs greedy_swap keeps.
        head: "dpo" compares pairs, "kto" judges each side on its own.
        beta: strength of the pull to the reference.
        beta_unit: "sum", per nat of the joint density, or "mean", the published value per dimension (Diffusion-KTO
            leaves out our 1/2, so its β is doubled here).
        draws: noise samples per output, shared by policy and reference.
        reference_rows: rows per forward without gradient.
    """

    reward: Any
    builder: Literal["pair", "greedy_swap", "tournament", "knockout", "pool"] = "greedy_swap"
    samples_per_prompt: AtLeastOne = 2
    sweeps: AtLeastOne = 1
    accept: Accept = "positive"
    head: Literal["dpo", "kto"] = "dpo"
    beta: NotNegative = 0.1
    beta_unit: BetaUnit = "sum"
    draws: AtLeastOne = 1
    reference_rows: AtLeastOne = 16

    def __post_init__(self) -> None:
        if self.builder == "knockout":  # its name before the first release
            self.builder = "tournament"
        number = self.samples_per_prompt
        refuse(
            self.preference.broken_rules(),
            must(
                number >= 2 and number % 2 == 0,
                f"samples_per_prompt: {number} does not make two equal sets; set an even number.",
            ),
            requires(
                self.builder == "tournament",
                number & (number - 1) == 0,
                f"samples_per_prompt: {number} sets cannot meet in rounds; set 2, 4, 8, ….",
            ),
            must(self.sweeps >= 1, f"sweeps: {self.sweeps} would never swap; set at least 1."),
        )

    @property
    def _over_sets(self) -> bool:
        """Are whole sets scored, one reward after the other, with one output per prompt in each?"""
        return self.builder in ("greedy_swap", "tournament")

    def check(self, setting: Setting) -> Iterator[str]:
        """Sets are scored reward by reward: neither a combination of rows nor sets of groups have an effect then."""
        if not self._over_sets:
            return
        yield from setting.rules_of_single_rewards()
        if grouped := setting.taken_over("group"):
            yield (
                f"rewards.{grouped[0]}.over: group has no effect with builder '{self.builder}', whose sets hold one "
                "output per prompt; remove it, or set builder: pair."
            )

    def collect(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Pairs:
        """D⁺ and D⁻ row by row, with shared noise and the reference's terms. CapabilityError without a set reward."""
        pairs = self.build(sample_groups(policy, batch, self.samples_per_prompt, rng))
        return self.with_reference(policy, pairs, rng)

    def build(self, rollout: Rollout) -> Pairs:
        """D⁺ and D⁻ of outputs, each prompt's `samples_per_prompt` rows one after the other, without densities."""
        return self._swapped(rollout) if self._over_sets else self._ranked(rollout)

    @cached_property
    def _members(self) -> list[SetMember]:
        """The set rewards that sets are compared by."""
        return set_rewards(self.reward)

    def _swapped(self, rollout: Rollout) -> Pairs:
        outputs = EmbeddedOutputs.of(self._members, rollout)
        rows = torch.arange(len(rollout), device=rollout.group.device)
        columns = rows.reshape(-1, self.samples_per_prompt if self.builder == "tournament" else 2)
        usable = outputs.finite.to(rows.device)[columns].all(1)  # a row that does not embed takes its pair out
        better, worse, high, low = columns[:, 0].clone(), columns[:, 1].clone(), 0.0, 0.0
        if usable.any():
            up, down, high, low = tournament(outputs, columns[usable], self.sweeps, self.accept)
            better[usable], worse[usable] = up, down
        # Equal or unusable (NaN) values say nothing about either set: the pairs stay, masked, and are counted.
        mask = usable & (high > low)
        gap = torch.full((len(better),), high - low, device=rows.device).where(mask, 0.0)
        return Pairs(chosen=rollout[better], rejected=rollout[worse], mask=mask, gap=gap)

    def _ranked(self, rollout: Rollout) -> Pairs:
        if callable(self.reward):
            scores = score_rollout(self.reward, rollout)
            value, valid = scores.value, scores.valid
        else:
            value = self.reward.credit(self.reward.embed(rollout)).to(rollout.group.device)
            valid = value.isfinite()
        ranking = neighbours if self.builder == "pair" else halves_of_pool
        return pairs_of_rows(rollout, *ranking(value, valid), value)

    @property
    def preference(self) -> PreferenceOptions:
        """The loss of `head` at `beta`: of pairs (DPO's sigmoid) or of each side by itself (KTO's)."""
        return PreferenceOptions(
            loss_type="sigmoid" if self.head == "dpo" else "kto",
            beta=self.beta,
            beta_unit=self.beta_unit,
            draws=self.draws,
            reference_rows=self.reference_rows,
        )


__all__ = ["DRAGON"]
