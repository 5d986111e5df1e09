"""Diffusion Negative-aware Fine-Tuning (NFT): learn from good and bad outputs by denoising them, without a likelihood.

Paper: Zheng et al. 2025, "DiffusionNFT: Online Diffusion Reinforcement with Forward Process" (arXiv 2509.16117).

    v⁺ = v_old + β (v_θ - v_old),   v⁻ = v_old - β (v_θ - v_old)
    loss = E_(t, ε) [ r ‖v⁺ - v*‖² + (1 - r) ‖v⁻ - v*‖² ] / β,     r = ½ + ½ clip(A / limit, -1, 1)

| symbol | here | meaning |
|---|---|---|
| v* | `Denoising.target` | what the network should predict for the output x0 at noise ε and level t |
| v_old | `Denoised.old` | what the policy that sampled predicts there |
| A | `advantage`, group-relative | reward minus the group's mean, over `std` |
| r | `Denoised.good` | how good the output is, in [0, 1]; ½ is the group's mean |
| β | `beta` | how far the implied good and bad policies lie from the old one |

Only the outputs are stored, any sampler may make them, and a draw costs one forward and one backward pass, where a
replayed step costs the same again for every step and branch of guidance. At v_θ = v_old the gradient of a draw is
(2r - 1) that of ‖v_θ - v*‖², whatever β; β alone says how soon the pull to v_old answers.

Each error is divided by its own size, without gradient (`self_normalised`, as the public code does for x0, which is
`weighting: const_x0` of the policy): ‖e‖²_mean / |e|_mean. Errors are means over the latent, not sums.

Reconstruction: from the public code, not the paper's text. The old policy is the one that sampled the batch (η = 0
there); the code's slowly following copy, which also samples, is left out: the updates of one batch
(`trainer.minibatches`) see it stand still. Nothing but `reference_weight` then bounds many steps together: a high rate
drives outputs off. Groups of equal rewards are skipped and counted, where the code trains on them with r = ½. Levels
come from the policy's `density_levels`, the code's from the sampler's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

from mmalign.core.experience import Denoised
from mmalign.core.options import AtLeastOne, NotNegative, Positive, must, refuse
from mmalign.core.protocols import DenoisingPolicy, Mean, Metrics, Probe, one_process
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives import _weights
from mmalign.objectives._advantages import Std, group_relative
from mmalign.objectives._rollouts import masked_means, sample_groups, score_rollout


@dataclass
class NFT:
    """Sample groups, noise the outputs again, and move towards the good and away from the bad ones.

    Args:
        reward: scores the outputs.
        group_size: outputs per prompt.
        beta: how far the implied good and bad policies lie from the old one (published: 1 for one reward, 0.1).
        draws: noise draws per output.
        std: what advantages are divided by, as of `grpo`.
        advantage_limit: the advantage at which an output counts as wholly good or bad (published: 5).
        self_normalised: divide each error by its own mean size.
        reference_weight: weight of the mean squared distance from the reference's prediction (published: 1e-4).
        reference_rows: bounds the rows per no-gradient forward.
    """

    reward: Any
    group_size: AtLeastOne = 8
    beta: Positive = 1.0
    draws: AtLeastOne = 2
    std: Std = "global"
    advantage_limit: Positive = 5.0
    self_normalised: bool = True
    reference_weight: NotNegative = 1e-4
    reference_rows: AtLeastOne = 16

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DenoisingPolicy
    also_called: ClassVar[dict[str, str]] = {
        "adv_clip_max": "advantage_limit",
        "num_image_per_prompt": "group_size",
        "num_generations": "group_size",
        "kl_beta": "reference_weight",
    }

    def __post_init__(self) -> None:
        refuse(
            must(self.group_size >= 2, f"group_size: {self.group_size} leaves nothing to compare; set at least 2."),
            must(self.beta > 0, f"beta: {self.beta} must be positive."),
            must(self.advantage_limit > 0, f"advantage_limit: {self.advantage_limit} must be positive."),
            must(self.reference_weight >= 0, f"reference_weight: {self.reference_weight} must be at least 0."),
        )

    def collect(self, policy: DenoisingPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Denoised:
        """Groups of outputs with how good each is, and what is predicted of those that train."""
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = score_rollout(self.reward, rollout)
        advantage, differ = group_relative(
            scores.value[:, None],
            rollout.group,
            scores.valid[:, None],
            std=self.std,
            limit=None,
            over_ranks=self.over_ranks,
        )
        trained = scores.valid & differ
        probe = policy.probe(rollout, rng, self.draws)
        old = predictions_where(policy, rollout, probe, trained, self.reference_rows)
        ref = None
        if self.reference_weight:
            with policy.reference():
                ref = predictions_where(policy, rollout, probe, trained, self.reference_rows)
        return Denoised(
            rollout=rollout,
            mask=trained[:, None].expand(-1, self.draws).clone(),
            good=optimality(advantage[:, 0], self.advantage_limit),
            old=old,
            ref=ref,
            probe=probe,
            scores=replace(scores, parts={**scores.parts, "dropped": (scores.valid & ~trained).float()}),
        )

    def weigh(self, mask: Bool[Tensor, "B T"], mean: Mean) -> Float[Tensor, "B T"]:
        """Every draw of every output that trains alike."""
        return _weights.per_step(mask, mean)

    def loss(self, policy: DenoisingPolicy, chunk: Denoised, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × (contrast of both implied policies + the pull to the reference) of these draws."""
        seen = policy.denoising(chunk.rollout, chunk.probe)
        factor = seen.weight * self.draws  # of one draw: the density's weights are shares of its mean over draws
        value = contrast(
            seen.prediction, chunk.old, seen.target, factor, chunk.good[:, None], self.beta, self.self_normalised
        )
        metrics = {
            "drift/old": mean_square(seen.prediction.detach() - chunk.old),
            "advantage/size": (2 * chunk.good - 1).abs()[:, None].expand_as(value) * self.advantage_limit,
        }
        if chunk.ref is not None:
            drift = mean_square(seen.prediction - chunk.ref)
            value = value + self.reference_weight * drift
            metrics["drift/reference"] = drift
        return _weights.weighted_sum(chunk, value), masked_means(chunk.mask, metrics)

    def counts(self, experience: Denoised) -> Metrics:
        """The shares of rows that have no score, and that do not train though they have one."""
        if experience.scores is None:
            return {}
        return {
            "rows/invalid": (~experience.scores.valid).float().mean(),
            "rows/dropped": experience.scores.parts["dropped"].mean(),
        }


def optimality(advantage: Float[Tensor, " B"], limit: float) -> Float[Tensor, " B"]:
    """How good each output is, ½ + ½ clip(A / limit, -1, 1), in [0, 1]."""
    return (advantage / limit).clamp(-1, 1) / 2 + 0.5


def contrast(
    now: Float[Tensor, "B T *latent"],
    old: Float[Tensor, "B T *latent"],
    target: Float[Tensor, "B T *latent"],
    factor: Float[Tensor, "B T"],
    good: Float[Tensor, "B 1"],
    beta: float,
    self_normalised: bool,
) -> Float[Tensor, "B T"]:
    """Return [r ℓ(v⁺) + (1 - r) ℓ(v⁻)] / β of every draw, ℓ the squared error times `factor`, a mean over the latent.

    With `self_normalised`, ℓ is divided by the mean size of the error times √factor, without gradient, so that errors
    of every level weigh alike.
    """
    move = beta * (now - old)
    good_loss, bad_loss = (_error(sign * move + old - target, factor, self_normalised) for sign in (1, -1))
    return (good * good_loss + (1 - good) * bad_loss) / beta


def _error(off: Tensor, factor: Tensor, self_normalised: bool) -> Tensor:
    size = factor * mean_square(off)
    if not self_normalised:
        return size
    return size / (factor.sqrt() * off.detach().flatten(2).abs().mean(2)).clamp(min=1e-5)


def mean_square(off: Float[Tensor, "B T *latent"]) -> Float[Tensor, "B T"]:
    """The mean over the latent of the squares."""
    return off.flatten(2).square().mean(2)


@without_gradient
def predictions_where(
    policy: DenoisingPolicy, rollout: Rollout, probe: Probe, needed: Bool[Tensor, " B"], rows: int
) -> Float[Tensor, "B T *latent"]:
    """What the policy predicts of the rows that are `needed`, `rows` at a time; 0 of the others, which none reads."""
    table = torch.zeros_like(probe["noise"])
    for part in needed.nonzero()[:, 0].split(rows) if bool(needed.any()) else ():
        noise = {name: value[part] for name, value in probe.items()}
        table[part] = policy.denoising(rollout[part], noise).prediction.to(table)
    return table


__all__ = ["NFT", "contrast", "optimality"]
