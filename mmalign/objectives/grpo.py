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

Units of the trust region and the guard are explained, with their table, in `_ratio.py`.

Reconstruction: GRPO-Guard's equations were read from code, not from the paper. Left out: ratio-free objectives, dual
clip, use of `Scores.confidence`. The "global" std covers the rows of every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.protocols import Mean, StepPolicy, one_process
from mmalign.core.types import Prompt, Rollout, Scores, StepDist, Transitions
from mmalign.objectives import _weights
from mmalign.objectives._advantages import Baseline, Std, group_relative
from mmalign.objectives._divergence import Divergence, divergence
from mmalign.objectives._ratio import Ratios, Region, clipped_gain, guarded, trust_region
from mmalign.objectives._replay import recorded
from mmalign.objectives._scoring import means, sample_groups, scored


@dataclass
class GRPO:
    """Sample `group_size` outputs per prompt, credit each against the others, move with clipped ratios.

    `clip` and `clip_high` are in `clip_unit`; `beta` weighs the KL from the reference in nats of the joint; `replay`
    recomputes the old log-probs instead of trusting the sampler's; `reference_rows` bounds rows per no-gradient
    forward; `horizon` is the length that `weighting: constant` divides by.
    """

    reward: Any
    group_size: int = 8
    clip: float = 0.2
    clip_high: float | None = None
    clip_unit: Literal["nats", "mean"] = "nats"
    guard: bool = False
    beta: float = 0.0
    divergence: Divergence = "k3"
    std: Std = "group"
    baseline: Baseline = "mean"
    std_floor: float = 1e-4
    advantage_clip: float | None = 5.0
    weighting: Literal["per_sequence", "per_step", "constant"] = "per_sequence"
    horizon: int = 1
    replay: bool = False
    reference_rows: int = 16

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = StepPolicy

    def __post_init__(self) -> None:
        faults = [
            f"{name}: {value} is out of range; {rule}."
            for name, value, fine, rule in (
                ("group_size", self.group_size, self.group_size >= 2, "a group needs at least 2 outputs"),
                ("clip", self.clip, self.clip > 0, "set a positive clip"),
                ("clip_high", self.clip_high, self.clip_high is None or self.clip_high > 0, "positive, or null"),
                ("beta", self.beta, self.beta >= 0, "0 turns the KL off"),
                ("horizon", self.horizon, self.horizon >= 1, "at least 1"),
                ("reference_rows", self.reference_rows, self.reference_rows >= 1, "at least 1"),
            )
            if not fine
        ]
        if self.clip_unit == "mean" and self.clip >= 1:
            faults.append(f"clip: {self.clip} is no mean-space value (published: 1e-5 to 0.2); set clip_unit: nats.")
        if faults:
            raise ConfigError(faults)

    def collect(self, policy: Any, batch: Sequence[Prompt], rng: torch.Generator) -> Transitions:
        """Groups of outputs with advantages, what the behaviour policy said and, if `beta`, what the reference says."""
        rollout = sample_groups(policy, batch, self.group_size, rng)
        old = self._old(policy, rollout)
        if not old.log_prob.shape[1]:
            raise CapabilityError("grpo trains recorded steps, and the policy recorded none; let it sample with noise.")
        steps = torch.ones_like(old.log_prob, dtype=torch.bool) if rollout.mask is None else rollout.mask
        scores = scored(self.reward, rollout)
        advantage, live = self._credit(scores, rollout, steps)
        dropped = (scores.valid & ~live).float()
        return Transitions(
            rollout=rollout,
            advantage=advantage,
            mask=steps & (scores.valid & live)[:, None],
            old=old,
            ref=self._reference(policy, rollout),
            scores=replace(scores, parts={**scores.parts, "dropped": dropped}),
        )

    def _old(self, policy: Any, rollout: Rollout) -> StepDist:
        if not (self.guard or self.replay) and rollout.step_logp is not None:
            return StepDist(log_prob=rollout.step_logp)
        old = recorded(policy, rollout, self.reference_rows, moments=self.guard)
        if self.guard and (old.mean is None or old.std is None):
            raise CapabilityError(
                "guard needs steps with a mean and a std, and this policy's have none; set guard: false."
            )
        return old if self.replay or rollout.step_logp is None else replace(old, log_prob=rollout.step_logp)

    def _reference(self, policy: Any, rollout: Rollout) -> StepDist | None:
        if not self.beta:
            return None
        with policy.reference():
            return recorded(policy, rollout, self.reference_rows, moments=self.divergence == "gaussian")

    def _credit(self, scores: Scores, rollout: Rollout, steps: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        value, valid = scores.value[:, None], scores.valid[:, None]
        if scores.per_step is not None:
            value, valid = scores.per_step, valid & steps
        return group_relative(
            value,
            rollout.group,
            valid,
            std=self.std,
            baseline=self.baseline,
            std_floor=self.std_floor,
            limit=self.advantage_clip,
            over_ranks=self.over_ranks,
        )

    def weigh(self, mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
        """Per sequence, per step, or constant; dropped and invalid rows weigh nothing and are not counted."""
        if self.weighting == "constant":
            return _weights.constant(mask, mean, self.horizon)
        return {"per_sequence": _weights.per_sequence, "per_step": _weights.per_step}[self.weighting](mask, mean)

    def loss(self, policy: Any, chunk: Transitions, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """-(weight × gain).sum() of these rows and steps; the mask keeps what deterministic steps say out of it."""
        dist = policy.step_dist(chunk.rollout, chunk.steps)
        region = trust_region(self.clip, self.clip_high, self.clip_unit, policy.event_size)
        delta = guarded(dist, chunk.old, chunk.mask) if self.guard else dist.log_prob - chunk.old.log_prob
        delta = delta.where(chunk.mask, 0.0)
        gain, ratio = clipped_gain(delta, chunk.advantage, region)
        metrics = self._metrics(chunk, delta, ratio, region)
        if chunk.ref is not None:
            kl = divergence(self.divergence, dist, chunk.ref, chunk.mask)
            gain = gain - self.beta * kl
            metrics |= means(chunk.mask, kl__reference=kl)
        if dist.entropy is not None:
            metrics |= means(chunk.mask, entropy=dist.entropy)
        if chunk.weight is None:
            raise ValueError("the chunk has no weight; set it with `weigh` on the whole minibatch before splitting.")
        return -(chunk.weight * gain.where(chunk.mask, 0.0)).sum(), metrics

    def _metrics(self, chunk: Transitions, delta: Ratios, ratio: Ratios, region: Region) -> dict[str, Tensor]:
        advantage = chunk.advantage.expand_as(ratio)
        beyond = ((ratio > 1 + region.high) & (advantage > 0)) | ((ratio < 1 - region.low) & (advantage < 0))
        metrics = means(
            chunk.mask, ratio__mean=ratio, ratio__clipped=beyond, kl__old=-delta, advantage__size=advantage.abs()
        )
        if chunk.scores is not None:
            metrics["rows/invalid"] = (~chunk.scores.valid).float().mean()
            metrics["rows/dropped"] = chunk.scores.parts["dropped"].mean()
        if chunk.rollout.truncated is not None:
            metrics["rows/truncated"] = chunk.rollout.truncated.float().mean()
        return metrics


__all__ = ["GRPO"]
