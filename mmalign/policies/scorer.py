"""A score per output, fitted to preferences: the policy that reward models are trained as.

It generates no outputs. Its scores define a distribution over preferences: an objective (`bradley_terry`) says how
likely one output is preferred to another given their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError, Diverged
from mmalign.core.options import Count, at_least
from mmalign.core.protocols import ScoreAdapter
from mmalign.core.tensor import Tensor
from mmalign.core.types import Output, Prompt, Rollout, groups
from mmalign.core.unloaded import Unloaded
from mmalign.policies._base import AdapterPolicy, micro_batches, require_kind


@dataclass
class Scorer(AdapterPolicy):
    """A reward model in training: the scores of a `ScoreAdapter`.

    Args:
        adapter: a reward model.
        rows: outputs per forward pass; 0 is all at once. Where gradients are taken, `trainer.micro_batch_size`
            is the memory knob.

    Raises:
        ValueError: an option out of range, or an adapter that gives no scores.
    """

    adapter: Unloaded[ScoreAdapter]
    rows: Count = 0

    def __post_init__(self) -> None:
        require_kind("scorer", "scores", self.adapter)
        at_least("rows", self.rows, 0)

    def observe(self, prompts: Sequence[Prompt], outputs: Output) -> Rollout:
        """Return B prompts with their given outputs (texts or images) as a rollout that `score` accepts."""
        if len(outputs) != len(prompts):
            raise DataError(
                f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row."
            )
        return Rollout(prompts=list(prompts), output=outputs, group=groups(prompts))

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """The scores (B,) in float32, higher is better, with gradient; a row's score does not depend on the others."""
        inputs = self.adapter.read(rollout.prompts, rollout.output)
        scores = torch.cat([self.adapter.score(inputs[part]) for part in micro_batches(len(inputs), self.rows)])
        if len(scores) and not bool(scores.isfinite().any()):
            raise Diverged(f"the scores of all {len(scores)} outputs are not finite: the model diverged")
        return scores


__all__ = ["Scorer"]
