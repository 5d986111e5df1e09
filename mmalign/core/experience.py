"""What one training step learns from: `Experience` and its kinds, one for each way in which objectives use a policy.

B are rows, T policy steps (tokens or denoising transitions), as in `mmalign.core.types`.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Rows, Scores, StepDist

E = TypeVar("E", bound="Experience")


class Experience(Rows):
    """What one step trains on; `mask` says which entries count, `weight` (set before any split) how much."""

    mask: Tensor
    weight: Tensor | None

    def minibatches(self: E, count: int, rng: torch.Generator) -> Iterator[E]:
        """`count` random parts of the rows (fewer only where there are fewer rows), whose sizes differ by 1 at most."""
        if count <= 1:
            return iter([self])
        order = torch.randperm(len(self), generator=rng)
        return (self[rows] for rows in order.tensor_split(max(1, min(count, len(self)))))

    def with_weight(self: E, weight: Tensor) -> E:
        """Return the same rows, of which every entry weighs what `weight` (of the shape of `mask`) says."""
        weighted: E = copy(self)
        weighted.weight = weight
        return weighted

    def contributing(self: E) -> E:
        """Return the rows that weigh anything, in their order; the first row alone where none does.

        A loss is a weighted sum: rows of weight 0 (groups without reward variance, ties, rows without a score) change
        neither it nor its gradient, and need not be computed. One row stays, because every process takes part in the
        sum of gradients.
        """
        if self.weight is None:
            return self
        counts = (self.weight != 0).flatten(1).any(1) if self.weight.dim() > 1 else self.weight != 0
        if bool(counts.all()):
            return self
        rows: Tensor = counts.nonzero()[:, 0]
        return self[rows if len(rows) else slice(0, 1)]

    def chunks(self: E, rows: int, steps_per_pass: int) -> Iterator[tuple[E, bool]]:
        """Parts of at most `rows` rows (and `steps_per_pass` steps, where steps exist), each with "is it the last?"."""
        starts = range(0, len(self), rows)
        return ((self[i : i + rows], i == starts[-1]) for i in starts)


@dataclass(kw_only=True)
class Transitions(Experience):
    """Scored rollouts, for objectives that replay the policy's own steps.

    `advantage` (B, 1) or (B, T); `old` is the step distribution of the behaviour policy, `ref` that of the reference.
    `steps` is the slice of T this part covers.
    """

    rollout: Rollout
    advantage: Float[Tensor, " B #T"]
    mask: Bool[Tensor, "B T"]
    old: StepDist
    ref: StepDist | None = None
    weight: Float[Tensor, "B T"] | None = None
    scores: Scores | None = None
    steps: slice = field(default_factory=lambda: slice(None))

    def chunks(self, rows: int, steps_per_pass: int) -> Iterator[tuple[Transitions, bool]]:
        """Parts of at most `rows` rows and `steps_per_pass` steps; `steps` says which."""
        length = self.mask.shape[1]
        cuts = [(i, t) for i in range(0, len(self), rows) for t in range(0, length, steps_per_pass)]
        for i, t in cuts:
            part, step_slice = self[i : i + rows], slice(t, min(t + steps_per_pass, length))
            yield (
                replace(
                    part,
                    steps=step_slice,
                    advantage=part.advantage if part.advantage.shape[1] == 1 else part.advantage[:, step_slice],
                    mask=part.mask[:, step_slice],
                    weight=None if part.weight is None else part.weight[:, step_slice],
                    old=part.old.steps(step_slice),
                    ref=None if part.ref is None else part.ref.steps(step_slice),
                ),
                (i, t) == cuts[-1],
            )


@dataclass(kw_only=True)
class Pairs(Experience):
    """Chosen and rejected outputs for the same prompts, with the noise both share.

    `probe` is the policy's shared noise sample (every entry (B, ...)), one for both sides and for the reference;
    `ref_chosen` and `ref_rejected` are the reference's log-prob terms under it, T and U of them (texts differ in
    length, noise samples do not). `label` (B,) is P(chosen is better). `gap` (B,) is the difference of their scores;
    `anchor` (B,) the log-ratio, in nats, that each side is compared with (KTO's reference point z₀); `divisor` (B,)
    what the chosen output's own log-prob is divided by; `beta` (B,) what β is multiplied with.

    `credit_chosen` (B, T) and `credit_rejected` (B, U) say how much each log-ratio term counts in the margin;
    `dense_chosen` (B, T) and `dense_rejected` (B, U) are rewards of single steps, in [-1/2, 1/2].
    """

    chosen: Rollout
    rejected: Rollout
    mask: Bool[Tensor, " B"]
    probe: dict[str, Tensor] = field(default_factory=dict)
    ref_chosen: Float[Tensor, "B T"] | None = None
    ref_rejected: Float[Tensor, "B U"] | None = None
    gap: Float[Tensor, " B"] | None = None
    label: Float[Tensor, " B"] | None = None
    anchor: Float[Tensor, " B"] | None = None
    divisor: Float[Tensor, " B"] | None = None
    beta: Float[Tensor, " B"] | None = None
    credit_chosen: Float[Tensor, "B T"] | None = None
    credit_rejected: Float[Tensor, "B U"] | None = None
    dense_chosen: Float[Tensor, "B T"] | None = None
    dense_rejected: Float[Tensor, "B U"] | None = None
    weight: Float[Tensor, " B"] | None = None


@dataclass(kw_only=True)
class Comparisons(Experience):
    """Judged pairs of outputs to fit a score to.

    `label` (B,) is P(chosen is better), `tie` (B,) marks those where neither was, `margin` (B,) ≥ 0 is by how much the
    preferred one must lead. Where features have a term of their own, `places` (B, n, 4) says at which tokens states are
    compared, as shares in [0, 1), `seeds` (B,) draw masks, and `tied` is what rows need of all the others.
    """

    chosen: Rollout
    rejected: Rollout
    mask: Bool[Tensor, " B"]
    label: Float[Tensor, " B"]
    tie: Bool[Tensor, " B"]
    margin: Float[Tensor, " B"]
    places: Float[Tensor, "B n 4"] | None = None
    seeds: Int[Tensor, " B"] | None = None
    tied: Any = None
    weight: Float[Tensor, " B"] | None = None


@dataclass(kw_only=True)
class Contrasts(Experience):
    """Items that belong together, and items that do not: `sides` of every row, each B outputs, by name in order.

    `there` (B, H) says which of a row's hard negatives it has, `key` (B,) is equal for rows that are alike, and `tied`
    is what each row's loss needs of all the others, set before any split.
    """

    prompts: list[Prompt]
    sides: dict[str, Rollout]
    there: Bool[Tensor, "B H"]
    key: Int[Tensor, " B"]
    mask: Bool[Tensor, " B"]
    tied: Any = None
    weight: Float[Tensor, " B"] | None = None


@dataclass(kw_only=True)
class Demonstrations(Experience):
    """Outputs to imitate, with the noise they are judged under; `divisor` (B,) divides each one's log-prob.

    `unconditional` (B,) is True for rows that are learned without their prompt, `prior` (B,) for outputs of the model
    that the run started from; None where there are none.
    """

    rollout: Rollout
    mask: Bool[Tensor, " B"]
    divisor: Float[Tensor, " B"]
    probe: dict[str, Tensor] = field(default_factory=dict)
    unconditional: Bool[Tensor, " B"] | None = None
    prior: Bool[Tensor, " B"] | None = None
    weight: Float[Tensor, " B"] | None = None


@dataclass(kw_only=True)
class Distillation(Experience):
    """Outputs with what a teacher says at each of their steps, T tokens or noise draws.

    `teacher` holds log-probs (B, T, V), or predictions (B, T, *latent) under the noise of `probe`; `pull` (B, T) is
    what the distance from it is multiplied with.
    """

    rollout: Rollout
    mask: Bool[Tensor, "B T"]
    teacher: Tensor
    pull: Float[Tensor, "B T"]
    probe: dict[str, Tensor] = field(default_factory=dict)
    weight: Float[Tensor, "B T"] | None = None


@dataclass(kw_only=True)
class Denoised(Experience):
    """Outputs that are noised again, T draws each, with what was predicted there when they were made.

    `good` (B,) in [0, 1] says how good each output is among its group; `old` are the predictions of the policy that
    made it, `ref` those of the reference, (B, T, *latent), under the noise of `probe`.
    """

    rollout: Rollout
    mask: Bool[Tensor, "B T"]
    good: Float[Tensor, " B"]
    old: Tensor
    ref: Tensor | None = None
    probe: dict[str, Tensor] = field(default_factory=dict)
    scores: Scores | None = None
    weight: Float[Tensor, "B T"] | None = None


@dataclass(kw_only=True)
class Requests(Experience):
    """Prompts to answer during the loss, with their noise drawn beforehand (`draws`, every entry (B, ...))."""

    prompts: list[Prompt]
    mask: Bool[Tensor, " B"]
    draws: dict[str, Tensor] = field(default_factory=dict)
    weight: Float[Tensor, " B"] | None = None


__all__ = [
    "Comparisons",
    "Contrasts",
    "Demonstrations",
    "Denoised",
    "Distillation",
    "Experience",
    "Pairs",
    "Requests",
    "Transitions",
]
