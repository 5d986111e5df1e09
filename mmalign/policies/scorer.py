"""A score per output, fitted to preferences: the policy that reward models are trained as.

It generates no outputs. Its scores define a distribution over preferences: an objective (`bradley_terry`) says how
likely one output is preferred to another given their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import CapabilityError, DataError, Diverged
from mmalign.core.options import Count, at_least
from mmalign.core.protocols import FeatureAdapter, GatedAdapter, ScoreAdapter, StateAdapter
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
        return _finite(torch.cat([self.adapter.score(inputs[part]) for part in micro_batches(len(inputs), self.rows)]))

    def features(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """What scores are made of, float32, with gradient. Raises CapabilityError where the adapter does not tell."""
        return self.scored_features(rollout)[1]

    def scored_features(self, rollout: Rollout) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """`score` and `features` of every row, of one forward."""
        adapter = self.adapter
        if not isinstance(adapter, FeatureAdapter):
            raise CapabilityError(f"{type(adapter).__name__} is no FeatureAdapter: it gives scores alone.")
        inputs = adapter.read(rollout.prompts, rollout.output)
        parts = [adapter.scored_features(inputs[part]) for part in micro_batches(len(inputs), self.rows)]
        scores, features = (torch.cat(side) for side in zip(*parts, strict=True))
        return _finite(scores), features

    def gates(self, prompts: Sequence[Prompt]) -> Float[Tensor, "B D"]:
        """What each dimension of `features` counts for the pair of kinds that a prompt names, where there are gates."""
        if not isinstance(self.adapter, GatedAdapter):
            raise CapabilityError(f"{type(self.adapter).__name__} is no GatedAdapter: all its dimensions count alike.")
        return self.adapter.gates(prompts)

    def scored_states(
        self, rollout: Rollout
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """`score`, the features at each token, and which tokens are the output's; all rows in one forward."""
        adapter = self.adapter
        if not isinstance(adapter, StateAdapter):
            raise CapabilityError(f"{type(adapter).__name__} is no StateAdapter: it tells no features of tokens.")
        scores, states, mask = adapter.scored_states(adapter.read(rollout.prompts, rollout.output))
        return _finite(scores), states, mask


def _finite(scores: Tensor) -> Tensor:
    if len(scores) and not bool(scores.isfinite().any()):
        raise Diverged(f"the scores of all {len(scores)} outputs are not finite: the model diverged")
    return scores


__all__ = ["Scorer"]
