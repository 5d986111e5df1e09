"""The protocol of objectives, over the policies that each drives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float

from mmalign.core.experience import Experience
from mmalign.core.protocols import Gather, Mean, Metrics
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt

P = TypeVar("P", contravariant=True)  # the policies that an objective drives


@runtime_checkable
class Objective(Protocol[P]):
    """What to collect, how much each entry weighs, and the loss, for policies of one kind (`needs`).

    What an objective may have besides is in `ObjectiveTraits`, with the defaults. One that has statistics beyond a
    prompt's own group is `Synchronized`, too: the loop sets its `over_ranks` (and a reward's), and every rank then
    calls it equally often.
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


@dataclass(frozen=True)
class Prior:
    """`count` outputs for `prompts`, dealt out in turn, that the start makes once before training."""

    prompts: Sequence[str]
    count: int


@dataclass(frozen=True, kw_only=True)
class ObjectiveTraits:
    """The optional members of an objective, read here and nowhere by name.

    Args:
        reads: what its batches may hold: "prompts", "preferences", "examples".
        online: the option that says whether it makes its own comparisons ("off": it reads them); None: it has none.
        target: the column that it imitates.
        reward: what scores its outputs; None: nothing does.
        counts: `counts(experience) -> Metrics`, where it leaves rows out: numbers of a whole weighted minibatch, for
            rows of weight 0 never reach `loss`.
        check: `check(setting)`, a sentence for what in the run around it does not go with it.
        check_data: `check_data(prompt)` raises DataError where a row's columns are nothing to it.
        doubts: sentences about what is allowed and may not be what was meant.
        whole_outputs: does its loss need every step of an output in one pass?
        group_size, samples_per_prompt: outputs that it makes of a prompt, under either name.
        held_out_loss: `held_out_loss(policy, rows, rng) -> float`, the loss of given rows that are not trained on.
        prior: what the model that the run starts from makes before training, set as `prior_rows`; None: nothing.
        tie_rows: `tie_rows(policy, experience, rows, gather, rank) -> Experience`, where rows of a minibatch enter one
            another's loss: called with gradient off for the whole weighted minibatch before it is split, by every
            process; `rows` bounds a forward, `gather` and `rank` lead to the rows of the others. None: no row does.
        reference_rows: the option that bounds its rows per no-gradient forward; None: it has none.
        std: what divides its advantages; "" where it has none.
        clip_unit: the unit of its clip range; "" where it has none.
    """

    reads: Collection[str] = frozenset({"prompts"})
    online: str | None = None
    target: str = "target"
    reward: Any = None  # a reward or a mix of the package above, of which the objective calls what it needs
    counts: Callable[[Experience], Metrics] | None = None
    check: Callable[[Setting], Iterable[str]] | None = None
    check_data: Callable[[Prompt], None] | None = None
    doubts: Sequence[str] = ()
    whole_outputs: bool = False
    group_size: int | None = None
    samples_per_prompt: int = 1
    prior: Prior | None = None
    held_out_loss: Callable[[Any, Sequence[Any], torch.Generator], float] | None = None
    tie_rows: Callable[[Any, Any, int, Gather, int], Any] | None = None
    reference_rows: int | None = None
    std: str = ""
    clip_unit: str = ""

    @classmethod
    def of(cls, objective: object) -> ObjectiveTraits:
        """Return the traits of an objective, or of its class, the default of each that it does not have."""
        values: dict[str, Any] = {f.name: getattr(objective, f.name, f.default) for f in fields(cls)}
        return cls(**values)


__all__ = ["Objective", "ObjectiveTraits", "Prior"]
