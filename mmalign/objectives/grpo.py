"""Group Relative Policy Optimization for tokens, flow SDEs and DDPM steps.

Papers: GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3), Flow-GRPO (Liu et al. 2025, arXiv 2505.05470), DDPO (Black et
al. 2023, arXiv 2305.13301), DAPO's asymmetric clip (Yu et al. 2025), GRPO-Guard (2025; after its public code).

    gain = τ min(r A, clip(r, 1-ε, 1+ε') A) - β KL,   r = exp(Δ/τ),   Δ = log π_θ(step) - log π_old(step)

| symbol | here | meaning |
|---|---|---|
| A | `advantage` | group-relative advantage, (B, 1), or (B, T) when the reward credits steps |
| Δ | `delta` | log-ratio of one step, summed over its event dimensions: nats of the joint |
| D | `policy.event_size` | event dimensions of a step: 1 for tokens, C·H·W for latents |
| τ, ε, ε' | `Region` | temperature of the ratio and the clip range |
| KL | `divergence` | per step, nats of the joint, from the frozen reference |

Trust region, guard, surrogates, levels of the ratio and KL estimators are explained, with their tables, in
`_policy_gradient.py`; baselines and the KL in the reward in `_advantages.py`; normalisers in `_weights.py`. N rows, |o|
steps each:

| method | options (beside `clip: 0.2`, which for tokens is PPO's ε) | each step weighs |
|---|---|---|
| GRPO (2402.03300) | beta: 0.04 | 1/(N |o|) |
| Dr. GRPO (2503.20783) | std: none, weighting: constant, horizon: L | 1/(N L), L = max_new_tokens |
| DAPO (2503.14476) | clip_high: 0.28, weighting: per_step, keep_groups: n, reward `overlong` | 1/Σ|o| |
| GSPO (2507.18071) | ratio: sequence, clip: 3e-4, clip_high: 4e-4 | 1/(N |o|) |
| LUSPO (TRL) | ratio: sequence, weighting: constant | 1/N |
| CISPO (2506.13585) | surrogate: cispo, clip: 1 (no lower bound), clip_high: 4, weighting: per_step | 1/Σ|o| |
| SAPO (2511.20347) | surrogate: sapo | 1/(N |o|) |
| RLOO (2402.14740) | baseline: leave_one_out, std: none, ratio: joint, reward_beta: β | 1/(N |o|) |
| REINFORCE++ (2501.03262) | baseline: none, std: none, whiten: true, reward_beta: β, reward_kl: to_go | 1/(N |o|) |
| REINFORCE++-baseline | baseline: mean, std: none, whiten: steps, beta: β, divergence: k2 | 1/(N |o|) |
| GDPO (several rewards, combine: group_z) | baseline: mean, std: none, whiten: true | 1/(N |o|) |
| SCST (1612.00563) | baseline: greedy, std: none, surrogate: score, weighting: per_step | 1/Σ|o| |

The counts run over the rows and steps that train: invalid rows, dead groups (equal rewards) and masked truncations are
left out of N and Σ|o|, over all processes. DAPO's dynamic sampling: `trainer.prompts_per_step` prompts are sampled, the
first `keep_groups` groups whose rewards differ train; where there are fewer, dead ones fill up (masked), so that
processes stay in step.

Reconstruction: GRPO-Guard's equations were read from code, not from the paper. DAPO draws further prompts until its
batch is full; here the surplus is drawn at once. Left out: use of `Scores.confidence`. The "global" std and `whiten`
cover the rows of every process; all spreads are population ones (TRL divides by G - 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.capabilities import offers
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.experience import Transitions
from mmalign.core.metrics import Average
from mmalign.core.options import AtLeastOne, NotNegative, Positive, must, refuse, requires
from mmalign.core.protocols import Mean, Metrics, StepPolicy, VelocityPolicy, one_process
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, StepDist
from mmalign.objectives import _advantages as advantages
from mmalign.objectives import _policy_gradient as pg
from mmalign.objectives import _weights as weights
from mmalign.objectives._advantages import Baseline, RewardKL, Std, Truncated
from mmalign.objectives._policy_gradient import Divergence, RatioLevel, Ratios, Region, Surrogate
from mmalign.objectives._rollouts import (
    masked_means,
    recompute_steps,
    recompute_steps_where,
    sample_groups,
    score_rollout,
)


@dataclass
class GRPO:
    """Sample `group_size` outputs per prompt, credit each against the others, move with clipped ratios.

    Args:
        reward: scores the outputs.
        group_size: outputs per prompt.
        clip, clip_high: how far the ratio may move down and up, in `clip_unit`; `clip_high` None is `clip`. Of cispo:
            bounds of the ratio itself, 1 - clip (1 or more: none) and 1 + clip_high.
        clip_unit: nats of the joint, or the published mean-space unit; see `_policy_gradient.py`.
        surrogate, ratio: what a step earns, and whose ratio judges it; see `_policy_gradient.py`.
        ratio_cap: above 1 + clip_high: bounds the ratio of bad steps too (dual clip).
        guard: GRPO-Guard's log-ratio, and its gain per flow time.
        beta, divergence: weight and estimator of the KL from the reference in the loss, nats of the joint; "velocity"
            takes the squared distance of a flow's velocities in its place.
        reward_beta, reward_kl: weight and form of the KL inside the reward.
        std, std_floor: what advantages are divided by.
        baseline: what they are measured against: the group's mean, the mean of the others, the greedy answer, nothing.
        whiten: centre and scale all advantages of the batch afterwards: `true` over outputs, `steps` over all their
            steps, so that an output counts as often as it is long (as REINFORCE++'s authors do). Dead groups count in
            it, as zeros; with `steps` they then differ from 0 and train, as the authors' do.
        advantage_clip: their largest size; `auto` is 5 of what they are divided by, and none where they stay raw
            rewards (`std: none`, greedy baseline), whose range is anybody's.
        weighting, horizon: the normaliser; `horizon` is the length that `constant` divides by.
        keep_groups: train on this many of the groups that a process samples, those whose rewards differ first; None
            for all.
        truncated: outputs cut off at the limit train like others ("keep"), only enter their group's statistics
            ("mask"), or neither ("exclude").
        replay: recompute the old log-probs instead of trusting the sampler's.
        reference_rows: bounds rows per no-gradient forward.
    """

    reward: Any
    group_size: AtLeastOne = 8
    clip: Positive = 0.2
    clip_high: Positive | None = None
    clip_unit: Literal["nats", "mean"] = "nats"
    surrogate: Surrogate = "clip"
    ratio: RatioLevel = "step"
    ratio_cap: Positive | None = None
    guard: bool = False
    beta: NotNegative = 0.0
    divergence: Divergence = "k3"
    reward_beta: NotNegative = 0.0
    reward_kl: RewardKL = "sequence"
    std: Std = "group"
    baseline: Baseline = "mean"
    std_floor: NotNegative = 1e-4
    whiten: bool | Literal["steps"] = False
    advantage_clip: Positive | Literal["auto"] | None = "auto"
    weighting: Literal["per_sequence", "per_step", "constant"] = "per_sequence"
    horizon: AtLeastOne = 1
    keep_groups: AtLeastOne | None = None
    truncated: Truncated = "keep"
    replay: bool = False
    reference_rows: AtLeastOne = 16

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = StepPolicy
    also_called: ClassVar[dict[str, str]] = {
        "global_std": "std: global",
        "num_generations": "group_size",
        "num_image_per_prompt": "group_size",
        "clip_range": "clip",
        "epsilon": "clip",
        "epsilon_high": "clip_high",
        "adv_clip_max": "advantage_clip",
        "kl_coef": "beta",
        "scale_rewards": "std: group or none",
    }

    @property
    def _absolute(self) -> bool:
        """Are scores compared beyond their group, so that they must mean the same in every call of the reward?"""
        return self.baseline in ("greedy", "none")

    def __post_init__(self) -> None:
        least, cap = 1 if self._absolute else 2, self.advantage_clip
        ranges = (
            ("group_size", self.group_size, self.group_size >= least, f"a group needs at least {least} outputs"),
            ("clip", self.clip, self.clip > 0, "set a positive clip"),
            ("clip_high", self.clip_high, self.clip_high is None or self.clip_high > 0, "positive, or null"),
            ("ratio_cap", self.ratio_cap, self.ratio_cap is None or self.ratio_cap > 1, "above 1, or null"),
            ("beta", self.beta, self.beta >= 0, "0 turns the KL off"),
            ("reward_beta", self.reward_beta, self.reward_beta >= 0, "0 turns the KL off"),
            ("horizon", self.horizon, self.horizon >= 1, "at least 1"),
            ("keep_groups", self.keep_groups, self.keep_groups is None or self.keep_groups >= 1, "at least 1"),
            ("reference_rows", self.reference_rows, self.reference_rows >= 1, "at least 1"),
            ("std_floor", self.std_floor, self.std_floor >= 0, "at least 0"),
            ("advantage_clip", cap, cap is None or cap == "auto" or cap > 0, "positive, null or auto"),
        )
        refuse(
            *(must(holds, f"{name}: {value} is out of range; {rule}.") for name, value, holds, rule in ranges),
            self._rules_across_options(),
        )

    def check(self, setting: Setting) -> Iterator[str]:
        """Scores compared beyond their group must not be on a scale of their group; velocities are a flow's."""
        if self.divergence == "velocity" and setting.policy is not None and not offers(setting.policy, VelocityPolicy):
            yield f"objective.{pg.NO_VELOCITY}"
        if self._absolute and setting.reward is not None and setting.reward.relative:
            yield (
                f"combine: '{setting.combine}' puts rewards on a common scale within each group, but objective "
                f"'{setting.objective}' (baseline: {self.baseline}) compares scores beyond it; set combine: {{name: "
                "weighted_sum, scale: running}, or raw where the rewards' units agree."
            )

    @property
    def doubts(self) -> list[str]:
        """A sentence for each combination of options that is allowed and may not be what was meant."""
        if self.clip_unit == "nats" and self.ratio == "step" and self.clip < 0.01:
            return [
                f"objective.clip: {self.clip:g} nats of the whole step; papers about pictures give such numbers for "
                "the mean over a step's dimensions: set clip_unit: mean if that is meant."
            ]
        return []

    def _rules_across_options(self) -> list[str]:
        """A sentence for every two options that do not go together."""
        highest = 1 + self._region(1).high
        return [
            *requires(
                self.clip_unit == "mean" and self.surrogate != "cispo",
                self.clip < 1,
                f"clip: {self.clip} is no mean-space value (published: 1e-5 to 0.2); set clip_unit: nats.",
            ),
            *requires(
                self._absolute,
                self.std == "none",
                f"std: {self.std} is a spread around the group's mean, and baseline: {self.baseline} has none; "
                "set std: none (and whiten: true to scale by the batch).",
            ),
            *requires(
                self.surrogate == "vespo",
                self.ratio == "joint",
                "surrogate: vespo weighs whole outputs; set ratio: joint.",
            ),
            *requires(
                self.guard,
                self.surrogate == "clip" and self.ratio == "step",
                "guard: is a form of the step's own log-ratio; set surrogate: clip and ratio: step.",
            ),
            *requires(
                self.ratio_cap is not None,
                self.surrogate == "clip" and not 1 < (self.ratio_cap or 0.0) <= highest,
                f"ratio_cap: {self.ratio_cap} bounds the ratio of surrogate clip, above 1 + clip_high ({highest:g}).",
            ),
            *requires(
                self.horizon > 1,
                self.weighting == "constant",
                f"horizon: {self.horizon} is the length that weighting: constant divides by; set that, or horizon: 1.",
            ),
        ]

    def _region(self, event_size: int) -> Region:
        form = pg.ratio_bounds if self.surrogate == "cispo" else pg.trust_region
        return form(self.clip, self.clip_high, self.clip_unit, event_size)

    def collect(self, policy: StepPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Transitions:
        """Groups of outputs with advantages, what the behaviour policy said and, if `beta`, what the reference says."""
        if self.keep_groups is not None and self.keep_groups > len(batch):
            raise ConfigError(
                f"objective.keep_groups: {self.keep_groups} groups of the {len(batch)} prompts that a process samples; "
                "raise trainer.prompts_per_step, or lower it."
            )
        if self.divergence == "velocity" and not isinstance(policy, VelocityPolicy):
            raise CapabilityError(pg.NO_VELOCITY)
        rollout = sample_groups(policy, batch, self.group_size, rng)
        old = self._old(policy, rollout)
        if not old.log_prob.shape[1]:
            raise CapabilityError("grpo trains recorded steps, and the policy recorded none; let it sample with noise.")
        steps = torch.ones_like(old.log_prob, dtype=torch.bool) if rollout.mask is None else rollout.mask
        scores = score_rollout(self.reward, rollout)
        finished = advantages.not_truncated(rollout, steps.device)
        ref = self._reference(policy, rollout, torch.ones_like(steps[:, 0]), old.log_prob) if self.reward_beta else None
        value, valid = advantages.values_and_mask(scores, steps)
        if ref is not None:
            kl_cost = self.reward_beta * (old.log_prob - ref.log_prob)
            value, valid = advantages.subtract_kl(value, valid, kl_cost, steps, self.reward_kl)
        if self.truncated == "exclude":
            valid = valid & finished[:, None]
        advantage, differ, valid = self._advantages(policy, batch, value, valid, rollout, steps, rng)
        trained = valid.any(1) & differ & (finished | (self.truncated == "keep"))
        parts = {
            **scores.parts,
            "dropped": (scores.valid & ~trained).float(),
            "live": differ.float().mean().expand(len(differ)),
        }
        experience = Transitions(
            rollout=rollout,
            advantage=advantage,
            mask=steps & trained[:, None],
            old=old,
            ref=ref,
            scores=replace(scores, parts=parts),
        )
        if self.keep_groups is not None:
            experience = experience[advantages.rows_of_groups_that_train(trained, self.group_size, self.keep_groups)]
        if self.beta and experience.ref is None:
            ref = self._reference(policy, experience.rollout, experience.mask.any(1), experience.old.log_prob)
            experience = replace(experience, ref=ref)
        return experience

    def _old(self, policy: StepPolicy, rollout: Rollout) -> StepDist:
        if not (self.guard or self.replay) and rollout.step_logp is not None:
            return StepDist(log_prob=rollout.step_logp)
        old = recompute_steps(policy, rollout, self.reference_rows, moments=self.guard)
        if self.guard and (old.mean is None or old.std is None):
            raise CapabilityError(pg.NO_MOMENTS)
        return old if self.replay or rollout.step_logp is None else replace(old, log_prob=rollout.step_logp)

    def _reference(self, policy: StepPolicy, rollout: Rollout, needed: Tensor, old: Tensor) -> StepDist:
        """What the reference says of the rows that are `needed` (B,); the log-probs of the others are `old`."""
        moments = self.divergence in ("gaussian", "velocity")
        with policy.reference():
            return recompute_steps_where(policy, rollout, needed, old, self.reference_rows, moments=moments)

    def _advantages(
        self,
        policy: StepPolicy,
        batch: Sequence[Prompt],
        value: Tensor,
        valid: Tensor,
        rollout: Rollout,
        steps: Tensor,
        rng: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advantages, the rows of groups whose rewards differ, and which entries count."""
        if self._absolute:
            reference: Tensor | float = 0.0
            if self.baseline == "greedy":
                reference, known = advantages.greedy_scores(policy, self.reward, batch, self.group_size, rng)
                valid = valid & known[:, None]
            advantage, differ = advantages.subtract_baseline(value, reference, valid), torch.ones_like(valid[:, 0])
        else:
            advantage, differ = advantages.group_relative(
                value,
                rollout.group,
                valid,
                std=self.std,
                baseline=self.baseline,
                std_floor=self.std_floor,
                limit=None,
                over_ranks=self.over_ranks,
            )
        if self.whiten == "steps":
            differ = valid.any(1)
            advantage = advantages.whiten(advantage, valid, self.std_floor, self.over_ranks, times=steps)
        elif self.whiten:
            advantage = advantages.whiten(advantage, valid, self.std_floor, self.over_ranks)
        if (limit := self._limit) is not None:
            advantage = advantage.clamp(-limit, limit)
        return advantage, differ, valid

    @property
    def _limit(self) -> float | None:
        if self.advantage_clip != "auto":
            return self.advantage_clip
        return 5.0 if self.whiten or (self.std != "none" and self.baseline != "greedy") else None

    def weigh(self, mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
        """Per sequence, per step, or constant; dropped and invalid rows weigh nothing and are not counted."""
        if self.weighting == "constant":
            return weights.constant(mask, mean, self.horizon)
        return {"per_sequence": weights.per_sequence, "per_step": weights.per_step}[self.weighting](mask, mean)

    def loss(self, policy: StepPolicy, chunk: Transitions, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """-(weight × gain).sum() of these rows and steps; the mask keeps what deterministic steps say out of it."""
        dist = policy.step_dist(chunk.rollout, chunk.steps)
        region = self._region(policy.event_size)
        if self.ratio != "step":
            pg.require_whole_outputs(chunk, self.ratio)
        delta = pg.guard_log_ratio(dist, chunk.old, chunk.mask) if self.guard else dist.log_prob - chunk.old.log_prob
        delta = pg.importance_log_ratio(delta, chunk.mask, self.ratio)
        log_prob = dist.log_prob.where(chunk.mask, 0.0)
        gain, ratio = pg.surrogate_objective(self.surrogate, delta, log_prob, chunk.advantage, region, self.ratio_cap)
        if self.guard and dist.dt is not None:
            gain = gain / dist.dt.where(chunk.mask, 1.0)
        metrics = self._metrics(chunk, dist.log_prob, ratio, region)
        if chunk.ref is not None:
            slope = None
            if self.divergence == "velocity" and isinstance(policy, VelocityPolicy):
                slope = policy.mean_slope(chunk.rollout, chunk.steps)
            kl = pg.divergence(self.divergence, dist, chunk.ref, chunk.mask, slope)
            gain = gain - self.beta * kl
            metrics |= masked_means(chunk.mask, {pg.METRIC_OF.get(self.divergence, "kl/reference"): kl})
        if dist.entropy is not None:
            metrics |= masked_means(chunk.mask, {"policy/entropy": dist.entropy})
        return -weights.weighted_sum(chunk, gain), metrics

    def _metrics(self, chunk: Transitions, log_prob: Ratios, ratio: Ratios, region: Region) -> dict[str, Average]:
        advantage = chunk.advantage.expand_as(ratio)
        high, low = ratio > 1 + region.high, ratio < 1 - region.low
        both = self.surrogate == "cispo"  # a weight is cut whatever the advantage's sign
        clipped = high | low if both else (high & (advantage > 0)) | (low & (advantage < 0))
        values = {
            "ratio/mean": ratio,
            "kl/old": chunk.old.log_prob - log_prob,  # of the step itself, whatever form or level the ratio has
            "advantage/size": advantage.abs(),
        }
        if self.surrogate in ("clip", "cispo"):
            values["ratio/clipped"] = clipped
        return masked_means(chunk.mask, values)

    @property
    def whole_outputs(self) -> bool:
        """Does the loss need every step of an output in one pass?"""
        return self.ratio != "step"

    def counts(self, experience: Transitions) -> Metrics:
        """The shares of rows that have no score, that do not train though they have one, and that were cut off."""
        shares: dict[str, Tensor] = {}
        if experience.scores is not None:
            shares["rows/invalid"] = (~experience.scores.valid).float().mean()
            shares["rows/dropped"] = experience.scores.parts["dropped"].mean()
            if self.keep_groups is not None:
                shares["groups/live"] = experience.scores.parts["live"].mean()
        if experience.rollout.truncated is not None:
            shares["rows/truncated"] = experience.rollout.truncated.float().mean()
        return shares


__all__ = ["GRPO"]
