"""Distil what a better expert knows over a worse one, step by step: a teacher beyond both.

AlignDistil (Zhang et al. 2025, arXiv 2503.02832): a DPO model and one fitted to the same pairs turned round are the
experts p⁺ and p⁻. The teacher extrapolates their logits z⁺ and z⁻, by a weight of each token that grows with how far
they are apart (TVD, the total variation of their distributions), and the policy follows it on its own samples:

    w_t = β₂ TVD_t,   TVD_t = Σ_v |p⁺_v - p⁻_v|,   z* = z⁺ + w_t (z⁺ - z⁻)
    loss = Σ_t (β₁ / w_t) KL(π_θ(· | y_<t) ‖ softmax z*)

| symbol | here | meaning |
|---|---|---|
| p⁺, p⁻ | `better`, `worse` | the experts: run directories, or sections |
| β₂ | `reach` | how far beyond the better expert the teacher goes |
| β₁ | `beta` | the strength of the pull |
| w_t | `reach` TVD + 1e-3 | as in the public code, whose TVD has no factor 1/2 |

The teacher is the optimum of a token reward only where w = 1; elsewhere it is an approximation. Of latents (ours) the
experts' predictions are extrapolated by one weight, ε* = ε⁺ + `reach` (ε⁺ - ε⁻), under one noise, and the KL of a
draw is its squared distance by the density's weight: w/2 ‖ε_θ - ε*‖², on the policy's samples. Tokens of codebooks are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

from mmalign.core.capabilities import offers
from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Distillation
from mmalign.core.options import AtLeastOne, NotNegative, Positive, must, refuse
from mmalign.core.protocols import DenoisingPolicy, DensityPolicy, Mean, Metrics, Probe, VocabularyPolicy
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives import _weights
from mmalign.objectives._rollouts import masked_means, sample_groups
from mmalign.rewards.models.reader import Make, Reader

_LEAST = 1e-3  # of w_t, as in the public code: equal experts have a finite pull


@dataclass
class Distill:
    """Sample, extrapolate two frozen experts on what was sampled, and follow them.

    Args:
        better: the expert to go beyond: a run directory, a language model's folder, or {adapter: {…}, policy: {…}}.
        worse: the one to go away from, of the same family.
        beta: the strength of the pull.
        reach: how far beyond the better expert: of texts times the experts' difference at each token (15 in the
            paper), of latents as it is (try 0.5 to 2); 0 distils the better expert.
        group_size: outputs per prompt.
        draws: noise draws per output, of latents.
        rows: outputs per forward pass of an expert.
    """

    better: str | dict[str, Any]
    worse: str | dict[str, Any]
    beta: Positive = 0.1
    reach: NotNegative = 15.0
    group_size: AtLeastOne = 1
    draws: AtLeastOne = 4
    rows: AtLeastOne = 8
    make: Make | None = field(default=None, repr=False, compare=False)

    experts: tuple[Reader, Reader] = field(init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    def __post_init__(self) -> None:
        refuse(
            must(self.beta > 0, f"beta: {self.beta} must be positive."),
            must(self.reach >= 0, f"reach: {self.reach} must be at least 0."),
            must(min(self.group_size, self.draws, self.rows) >= 1, "group_size, draws, rows: must be at least 1."),
        )
        self.experts = (Reader(self.make, self.better, "better"), Reader(self.make, self.worse, "worse"))
        self.make = None

    def prepare(self) -> None:
        """Load both experts, before anything else is."""
        _ = [expert.loaded for expert in self.experts]

    def collect(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Distillation:
        """Sample outputs, and read the teacher at each of their steps.

        Raises:
            CapabilityError: experts with other tokens, entries or latents than the policy's.
        """
        rollout = sample_groups(policy, batch, self.group_size, rng)
        if offers(policy, VocabularyPolicy) and rollout.mask is not None:
            teacher, pull = self._of_tokens(rollout)
            return Distillation(rollout=rollout, mask=rollout.mask, teacher=teacher, pull=pull.where(rollout.mask, 0.0))
        if not offers(policy, DenoisingPolicy):
            raise CapabilityError(
                "distill needs a policy whose steps have logits (tokens), or that denoises (flow, ddpm)."
            )
        probe = policy.probe(rollout, rng, self.draws)
        teacher, pull = self._of_draws(rollout, probe)
        mask = torch.ones_like(pull, dtype=torch.bool)
        return Distillation(rollout=rollout, mask=mask, teacher=teacher, pull=pull, probe=probe)

    def _of_tokens(self, rollout: Rollout) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B T"]]:
        """The teacher's log-probs, and the pull of every token."""
        parts = []
        for start in range(0, len(rollout), self.rows):
            part = rollout[start : start + self.rows]
            better, worse = (_logits(expert, part) for expert in self.experts)
            if better.shape != worse.shape:
                raise CapabilityError("better, worse: have other vocabularies; name two models of the policy's family.")
            parts.append(teacher_of_tokens(better, worse, self.reach, self.beta))
        teacher, pull = (torch.cat(side) for side in zip(*parts, strict=True))
        return teacher.to(rollout.group.device), pull.to(rollout.group.device)

    def _of_draws(self, rollout: Rollout, probe: Probe) -> tuple[Tensor, Float[Tensor, "B T"]]:
        """The teacher's predictions at every draw, and their weight."""
        parts = []
        for start in range(0, len(rollout), self.rows):
            rows = slice(start, start + self.rows)
            noise = {key: value[rows] for key, value in probe.items()}
            seen = []
            for expert in self.experts:
                if not offers(expert.loaded, DenoisingPolicy):
                    raise CapabilityError(f"{expert.at}: does not denoise; name a checkpoint of the policy's family.")
                with torch.no_grad():
                    seen.append(expert.loaded.denoising(rollout[rows], noise))  # type: ignore[attr-defined]
            better, worse = seen
            teacher = extrapolated(better.prediction, worse.prediction, self.reach)
            parts.append((teacher, self.beta * better.weight))
        teacher, pull = (torch.cat(side) for side in zip(*parts, strict=True))
        return teacher, pull

    def weigh(self, mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
        """Every step alike."""
        return _weights.per_step(mask, mean)

    def loss(self, policy: DensityPolicy, chunk: Distillation, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × pull × distance of these steps from the teacher."""
        if chunk.probe:
            now = policy.denoising(chunk.rollout, chunk.probe).prediction  # type: ignore[attr-defined]
            distance = (now - chunk.teacher).flatten(2).square().sum(2) / 2
        else:
            distance = kl_from_teacher(policy.step_logits(chunk.rollout), chunk.teacher)  # type: ignore[attr-defined]
        metrics = masked_means(chunk.mask, {"distill/distance": distance, "distill/pull": chunk.pull})
        return _weights.weighted_sum(chunk, chunk.pull.to(distance) * distance), metrics


def teacher_of_tokens(
    better: Float[Tensor, "*rows V"], worse: Float[Tensor, "*rows V"], reach: float, beta: float
) -> tuple[Float[Tensor, "*rows V"], Float[Tensor, "*rows"]]:
    """The teacher's log-probs, log softmax(z⁺ + w (z⁺ - z⁻)) with w = reach Σ|p⁺ - p⁻| + 1e-3, and the pull β / w.

    With `reach` 0 the teacher is the better expert and the pull β.
    """
    if reach == 0:
        return better.log_softmax(-1), torch.full_like(better[..., 0], beta)
    weight = reach * (better.softmax(-1) - worse.softmax(-1)).abs().sum(-1) + _LEAST
    return extrapolated(better, worse, weight[..., None]).log_softmax(-1), beta / weight


def extrapolated(better: Tensor, worse: Tensor, weight: float | Tensor) -> Tensor:
    """Beyond the better expert, better + weight (better - worse): of logits a product of powers of both densities."""
    return better + weight * (better - worse)


def kl_from_teacher(logits: Float[Tensor, "*rows V"], teacher: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows"]:
    """KL(softmax logits ‖ teacher) of every step, in nats; `teacher` are log-probs."""
    own = logits.log_softmax(-1)
    return (own.exp() * (own - teacher)).sum(-1)


def _logits(expert: Reader, rollout: Rollout) -> Tensor:
    if not offers(expert.loaded, VocabularyPolicy):
        raise CapabilityError(f"{expert.at}: has no logits; name a language model of the policy's family.")
    with torch.no_grad():
        table: Tensor = expert.loaded.step_logits(rollout)  # type: ignore[attr-defined]
    return table


__all__ = ["Distill", "extrapolated", "kl_from_teacher", "teacher_of_tokens"]
