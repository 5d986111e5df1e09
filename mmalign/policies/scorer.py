"""A score per output, to be fitted: what reward models are trained as.

It makes no outputs. What it stands for is a distribution over preferences: an objective says how likely one output is
preferred to another given their scores (`bradley_terry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError, Diverged
from mmalign.core.options import Count
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, groups
from mmalign.policies._options import at_least, makes_scores
from mmalign.policies._rollout import micro_batches


@dataclass
class Scorer:
    """The scores of a `ScoreAdapter`.

    Args:
        adapter: a reward model.
        rows: outputs per forward pass; 0 is all at once. Where gradients are taken, `trainer.micro_batch_size`
            is the memory knob.

    Raises:
        ValueError: an option out of range, or an adapter that gives no scores.
    """

    adapter: Any
    rows: Count = 0

    def __post_init__(self) -> None:
        makes_scores("scorer", self.adapter)
        at_least("rows", self.rows, 0)

    @property
    def modality(self) -> Modality:
        """Of the outputs it judges."""
        return self.adapter.modality  # type: ignore[no-any-return]

    @property
    def module(self) -> torch.nn.Module:
        """The adapter's trainable part."""
        return self.adapter.module  # type: ignore[no-any-return]

    def reference(self) -> AbstractContextManager[None]:
        """Inside it scores are those it started from."""
        return self.adapter.reference()  # type: ignore[no-any-return]

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        """Given outputs as a rollout that `score` accepts."""
        if len(outputs) != len(prompts):
            raise DataError(
                f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row."
            )
        return Rollout(prompts=list(prompts), output=outputs, group=groups(prompts))

    def score(self, rollout: Rollout) -> Float[Tensor, " B"]:
        """The score of every row in float32, higher is better; with gradient. A row does not know the others."""
        inputs = self.adapter.read(rollout.prompts, rollout.output)
        scores = torch.cat([self.adapter.score(inputs[part]) for part in micro_batches(len(inputs), self.rows)])
        if len(scores) and not bool(scores.isfinite().any()):
            raise Diverged(f"the scores of all {len(scores)} outputs are not finite: the model diverged")
        return scores


__all__ = ["Scorer"]
