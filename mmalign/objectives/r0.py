"""R0 / Reward-Instruct: train a few-step generator by following reward gradients, balanced and held near its start.

Paper: Luo et al. 2025, "Rewards Are Enough for Fast Photo-Realistic Text-to-image Generation" (arXiv 2503.13070).

    y = G_θ(noise, prompt);   g = Σ_i w_i g_i / ‖g_i‖,  g_i = ∂ r_i / ∂ y;   loss = -<sg(g), y> + λ ‖θ - θ₀‖²

| symbol | here | meaning |
|---|---|---|
| G_θ | `policy.rsample` | the few-step sampler, with gradient; its random η and R0+'s random step are the policy's |
| y | `rollout.output` | images (B, 3, H, W) or sound; x₀ its latents, `trajectory["x0"]` |
| r_i, w_i | `reward.members` | rewards and weights of the mix, each differentiable |
| λ | `weight_decay_to_start` | L2 to the initial weights; ‖BA‖² for LoRA (`_reward_gradients.py`) |
| guidance | `guidance_weight` | implicit reward: a direction on x₀ from the frozen teacher, with minus without prompt |

Each gradient is normalised per sample on the output, so a reward's scale does not matter and w_i are shares. With
`normalize: false` the raw gradients add up; λ then needs another value.

**λ and splits.** The L2 term belongs to the update, not to a chunk: every chunk adds λ ‖θ - θ₀‖² times the sum of its
weights. These sum to 1 over an update (to the process's share of it where rows differ), so any split adds it once.

From the paper: 4 steps from the pretrained network, no data and no distillation loss, per-reward gradient
normalisation, the guidance reward, weight regularisation, random η, R0+. Reconstruction: where the norm is taken (per
sample, on the output), 1e-8, the mask of saturated pixels, and the forms of the guidance reward and of the L2 term.
Left out: the high-resolution guidance loss, Langevin noise of the second version. A run should keep a reward it does
not train on: the paper's own FID rises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Requests
from mmalign.core.metrics import Average
from mmalign.core.options import AtLeastOne, NotNegative, must, refuse
from mmalign.core.protocols import DiffPolicy, GuidedPolicy, Metrics
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives import _weights
from mmalign.objectives._reward_gradients import (
    cosines,
    drop_outward,
    gradient_norms,
    initial_weights,
    inner_products,
    l2_to_initial,
    output_gradient,
    output_tensor,
    unit_gradients,
)
from mmalign.objectives._rollouts import masked_means
from mmalign.objectives._selection import HasMembers, ScoresSets
from mmalign.objectives._weights import RowsAlike


@dataclass
class R0(RowsAlike):
    """Follow the normalised gradients of differentiable rewards through a few-step sampler.

    Args:
        reward: differentiable rewards, taken one by one.
        samples_per_prompt: outputs per prompt and update.
        normalize: divide each reward's gradient by its norm, so that none outweighs the others by its scale.
        guidance_weight: of the direction of guidance, which needs a policy with `guidance_direction`; 0 is none.
        weight_decay_to_start: pull of the weights to those before training, per update.
        mask_saturated: take out, before the norm, what would push black or white pixels further out: rewards see the
            clamped picture, and with the policy's straight-through clamp such pixels would take up norm and move
            latents for nothing. What brings them back stays.
    """

    reward: Any
    samples_per_prompt: AtLeastOne = 1
    normalize: bool = True
    guidance_weight: NotNegative = 0.0
    weight_decay_to_start: NotNegative = 0.0
    mask_saturated: bool = False
    _start: dict[str, Tensor] | None = field(init=False, default=None, repr=False)  # θ₀: a constant, copied once

    needs: ClassVar[type] = DiffPolicy

    def __post_init__(self) -> None:
        refuse(
            *(
                must(value >= least, f"{name}: {value} is out of range; set at least {least}.")
                for name, value, least in (
                    ("samples_per_prompt", self.samples_per_prompt, 1),
                    ("weight_decay_to_start", self.weight_decay_to_start, 0),
                    ("guidance_weight", self.guidance_weight, 0),
                )
            )
        )
        if blind := [name for name, (reward, _) in self.rewards().items() if not reward.differentiable]:
            raise CapabilityError(
                f"r0 follows the rewards' gradient, but {', '.join(blind)} has none; use differentiable ones, or grpo."
            )

    def check(self, setting: Setting) -> Iterator[str]:
        """Rewards are followed one by one, not what `combine` makes of them."""
        yield from setting.rules_of_single_rewards()

    def rewards(self) -> Mapping[str, tuple[Any, float]]:
        """Return the rewards to follow with their weights: the members of a mix, or the one reward."""
        return self.reward.members if isinstance(self.reward, HasMembers) else {"reward": (self.reward, 1.0)}

    def collect(self, policy: DiffPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Requests:
        """`samples_per_prompt` rows of each prompt, and all the noise their outputs will use; nothing is made yet."""
        if self.guidance_weight and not isinstance(policy, GuidedPolicy):
            raise CapabilityError(
                f"guidance_weight: {type(policy).__name__} has no guidance_direction; set guidance_weight: 0."
            )
        prompts = [prompt for prompt in batch for _ in range(self.samples_per_prompt)]
        draws = policy.draw(prompts, rng)
        device = next(policy.module.parameters()).device
        return Requests(prompts=prompts, mask=torch.ones(len(prompts), dtype=torch.bool, device=device), draws=draws)

    def loss(self, policy: DiffPolicy, chunk: Requests, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """-(weight × gain).sum() with gain the rewards' linear surrogate, plus this chunk's share of the L2 term."""
        weight = _weights.weight_of(chunk)
        if self.weight_decay_to_start and self._start is None:
            self._start = initial_weights(policy)  # before `rsample`: visiting the reference may move weights in place
        self._check_sets(chunk)
        rollout = policy.rsample(chunk.prompts, chunk.draws)
        gain, metrics = self._reward_gain(rollout)
        if self.guidance_weight and isinstance(policy, GuidedPolicy):
            gain = gain + self.guidance_weight * self._guidance_gain(policy, rollout, chunk, metrics)
        loss = -_weights.weighted_sum(chunk, gain)
        if self.weight_decay_to_start:
            distance = l2_to_initial(policy.module, self._start or {})
            metrics["weights/distance"] = distance.detach()
            share = weight.sum(dtype=torch.float64).to(distance)  # float64: the shares of any split add up alike
            loss = loss + self.weight_decay_to_start * share * distance
        return loss, metrics

    def _check_sets(self, chunk: Requests) -> None:
        """The set of a set reward is the minibatch; a part of it is another set, with another gradient."""
        sets = [name for name, (reward, _) in self.rewards().items() if isinstance(reward, ScoresSets)]
        if sets and chunk.weight is not None and float(chunk.weight.sum()) < 1 - 1e-3:
            raise CapabilityError(
                f"r0: {', '.join(sets)} scores a set, and this part has some rows of it; "
                "set trainer.micro_batch_size: 0."
            )

    def _reward_gain(self, rollout: Rollout) -> tuple[Float[Tensor, " B"], dict[str, Average | Tensor]]:
        output = output_tensor(rollout.output)
        metrics: dict[str, Average | Tensor] = {}
        gradients: dict[str, Tensor] = {}
        total = torch.zeros_like(output)
        for name, (reward, weight) in self.rewards().items():
            gradient, value, valid = output_gradient(reward, rollout)
            if self.mask_saturated:
                gradient = drop_outward(gradient, rollout.output)
            gradients[name] = gradient
            total += weight * (unit_gradients(gradient) if self.normalize else gradient)
            metrics |= masked_means(valid, {f"reward/{name}": value, f"gradient/{name}": gradient_norms(gradient)})
            metrics[f"invalid/{name}"] = (~valid).float().mean()
        metrics |= {f"cosine/{names}": cosine.float().mean() for names, cosine in cosines(gradients).items()}
        return inner_products(total, output), metrics

    def _guidance_gain(
        self, policy: GuidedPolicy, rollout: Rollout, chunk: Requests, metrics: dict[str, Average | Tensor]
    ) -> Float[Tensor, " B"]:
        x0 = rollout.trajectory["x0"]
        with torch.no_grad():
            direction = policy.guidance_direction(x0.detach(), chunk.prompts, chunk.draws)
        metrics["gradient/guidance"] = gradient_norms(direction).mean()
        return inner_products(unit_gradients(direction) if self.normalize else direction, x0)


__all__ = ["R0"]
