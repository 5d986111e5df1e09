"""The protocol of objectives, over the policies that each drives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float

from mmalign.core.experience import Experience
from mmalign.core.protocols import Mean, Metrics
from mmalign.core.tensor import Tensor

P = TypeVar("P", contravariant=True)  # the policies that an objective drives


@runtime_checkable
class Objective(Protocol[P]):
    """What to collect, how much each entry weighs, and the loss, for policies of one kind (`needs`).

    What an objective may have besides:

    * `over_ranks: Mean`, if it has statistics beyond a prompt's own group; the loop sets it (and a reward's). Every
      rank then calls it equally often.
    * `reads: frozenset[str]`, if its batches may hold other rows than prompts: of "prompts", "preferences", "examples".
    * `counts(experience) -> Metrics`, if it leaves rows out: numbers of a whole weighted minibatch, for rows of weight
      0 never reach `loss`.
    * `check(setting: Setting)` (`core.setting`), yielding a sentence for what in the run around it does not go with it.
    * `doubts: list[str]`, what is allowed and may not be what was meant; `whole_outputs: bool`, does its loss need
      every step of an output in one pass?
    """

    @property
    def needs(self) -> type:
        """The policy capability that it drives: the protocol P."""
        ...

    def collect(self, policy: P, batch: Sequence[Any], rng: torch.Generator) -> Experience:
        """Sample, score and credit one batch of rows; called without gradient."""
        ...

    def weigh(self, mask: Bool[Tensor, " B *T"], mean: Mean) -> Float[Tensor, " B *T"]:
        """Weights of a whole minibatch; `mean` averages counts over ranks so that they sum to the rank count."""
        ...

    def loss(self, policy: P, chunk: Any, rng: torch.Generator) -> tuple[Float[Tensor, ""], Metrics]:
        """-(weight × gain).sum() of one chunk, and detached metrics of it, by the names of `core.metrics.METRICS`."""
        ...


__all__ = ["Objective"]
