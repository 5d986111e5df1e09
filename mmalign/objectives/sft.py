"""Imitation: raise the log-prob of given outputs, or of the best of the policy's own (best-of-N, rejection sampling).

    loss = -log π_θ(output | prompt), per output, per token of it, or per token of the batch

Best-of-N as training: RAFT (Dong et al. 2023, arXiv 2304.06767), one round per step: sample `group_size` outputs, keep
the best by the reward, imitate it. A prompt without a scored output is skipped and counted.

For diffusion -log π_θ is the denoising error of Diffusion-DPO's density: ordinary fine-tuning of it, in the `unit` of
the joint ("sum") or per latent element ("mean").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from mmalign.core.errors import DataError
from mmalign.core.experience import Demonstrations
from mmalign.core.options import AtLeastOne, must, refuse, requires
from mmalign.core.protocols import DensityPolicy, Mean, Metrics, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Example, Preference, Prompt, Rollout
from mmalign.data.row_kinds import prompts_of
from mmalign.objectives import _weights
from mmalign.objectives._pairs import BetaUnit
from mmalign.objectives._rollouts import batch_outputs, masked_means, sample_groups, score_rollout
from mmalign.objectives._selection import best_and_worst
from mmalign.objectives._weights import Per, RowsAlike, log_prob_divisors, token_counts


@dataclass
class SFT(RowsAlike):
    """Imitate the outputs of examples, the chosen ones of preferences, a column of prompts, or the policy's own best.

    Every valid output weighs the same; its length enters by `per`.

    Args:
        reward: ranks samples where `online` is best_of_n.
        online: "off" imitates data: `output` of examples, `chosen` of preferences, or the entry `target` of a
            prompt's meta.
        group_size: N of best-of-N.
        target: the column of a prompt file that holds the output.
        per: what -log p is divided by: nothing, the output's own tokens, or the batch's mean number of tokens.
        unit: nats of the joint ("sum"), or of one event dimension ("mean").
        draws: noise draws per output, for diffusion.
    """

    reward: Any = None
    online: Literal["off", "best_of_n"] = "off"
    group_size: AtLeastOne = 4
    target: str = "target"
    per: Per = "batch_token"
    unit: BetaUnit = "sum"
    draws: AtLeastOne = 1

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    def __post_init__(self) -> None:
        refuse(
            requires(
                self.online != "off",
                self.reward is not None,
                "online: best_of_n ranks samples by a reward, and there is none; add one, or online: off.",
            ),
            must(self.group_size >= 1, f"group_size: {self.group_size} must be at least 1."),
            must(self.draws >= 1, f"draws: {self.draws} must be at least 1."),
        )

    @property
    def reads(self) -> frozenset[str]:
        """What batches may hold."""
        return frozenset({"preferences", "prompts", "examples"} if self.online == "off" else {"prompts"})

    def collect(self, policy: DensityPolicy, batch: Sequence[Any], rng: torch.Generator) -> Demonstrations:
        """Outputs to imitate, with their noise and what divides their log-probs."""
        rollout, mask = self._given(policy, batch) if self.online == "off" else self._best(policy, batch, rng)
        probe = policy.probe(rollout, rng, self.draws)
        divisor = log_prob_divisors(rollout, not probe, mask, self.per, self.over_ranks)
        return Demonstrations(rollout=rollout, mask=mask, divisor=divisor, probe=probe)

    def _given(self, policy: DensityPolicy, batch: Sequence[Any]) -> tuple[Rollout, Tensor]:
        prompts = prompts_of(batch)
        outputs = [self._output(number, row) for number, row in enumerate(batch)]
        rollout = policy.observe(prompts, batch_outputs(outputs, "target"))
        return rollout, torch.ones(len(prompts), dtype=torch.bool, device=rollout.group.device)

    def _output(self, number: int, row: Prompt | Preference | Example) -> Any:
        if isinstance(row, Example):
            return row.output
        return row.chosen if isinstance(row, Preference) else self._target(number, row)

    def _target(self, number: int, prompt: Prompt) -> Any:
        if prompt.meta.get(self.target) is None:
            known = ", ".join(sorted(prompt.meta)) or "none"
            raise DataError(
                f"row {number} of the batch: the prompt has no '{self.target}' to imitate; its other columns: {known}. "
                "Name one in objective.target, or set online: best_of_n."
            )
        return prompt.meta[self.target]

    def _best(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> tuple[Rollout, Tensor]:
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = score_rollout(self.reward, rollout)
        best, _, _ = best_and_worst(scores.value, scores.valid, self.group_size)
        return rollout[best], scores.valid[best]

    def counts(self, experience: Demonstrations) -> Metrics:
        """Return the share of prompts without an output to imitate."""
        return {"rows/skipped": (~experience.mask).float().mean()}

    def loss(self, policy: DensityPolicy, chunk: Demonstrations, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """-(weight × log p).sum() of these outputs."""
        size = float(policy.event_size)
        log_prob = policy.log_prob(chunk.rollout, chunk.probe).sum(1)
        gain = log_prob / chunk.divisor.to(log_prob) / (size if self.unit == "mean" else 1.0)
        tokens = token_counts(chunk.rollout, not chunk.probe).to(log_prob)
        fit = {"fit/target": log_prob / size, "fit/per_token": log_prob / size / tokens}
        metrics = masked_means(chunk.mask, fit)
        return -_weights.weighted_sum(chunk, gain), metrics


__all__ = ["SFT"]
