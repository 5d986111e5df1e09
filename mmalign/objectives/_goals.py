"""A reward model whose states tell early where an output is going: goal-conditioned representations.

Paper: Nath et al. 2024 (2407.13887), from the authors' public code and abstract:

    L_gc = -log σ(cos(h_i, h_j)) - log(1 - σ(cos(h_i, h'_k))),   i < j

| symbol | here | meaning |
|---|---|---|
| h_i | `chosen` at a source | the state at a token of the chosen output |
| h_j | `chosen` at a goal | the state at a later token of it |
| h'_k | `rejected` at a goal | the state at such a token of the rejected output |

The mean is of the logs; the public code takes the log of the batch's mean, in which rows would enter one another's
loss. Reconstruction: i is uniform over all but the last token, j uniform over those after it, k drawn by the same law.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.options import AtLeastOne, NotNegative, must, refuse
from mmalign.core.rng import rand
from mmalign.core.tensor import Tensor


@dataclass
class Goals:
    """The goal-conditioned term.

    Args:
        weight: of the term beside Bradley-Terry's; 0.5 in the paper.
        draws: sources with a goal each, of every pair; 16 in the paper.
    """

    weight: NotNegative = 0.5
    draws: AtLeastOne = 16

    def __post_init__(self) -> None:
        refuse(
            must(self.weight >= 0, f"goals.weight: {self.weight} must be at least 0."),
            must(self.draws >= 1, f"goals.draws: {self.draws} must be at least 1."),
        )

    def places(self, rows: int, rng: torch.Generator, device: torch.device) -> Float[Tensor, "B n 4"]:
        """Where sources and goals of both sides lie, as shares in [0, 1), drawn once so that no split changes them."""
        return rand((rows, self.draws, 4), rng, device)


def goal_loss(
    chosen: Float[Tensor, "B L D"],
    own: Bool[Tensor, "B L"],
    rejected: Float[Tensor, "B M D"],
    other: Bool[Tensor, "B M"],
    places: Float[Tensor, "B n 4"],
) -> Float[Tensor, " B"]:
    """L_gc of every pair, mean over its draws; 0 where a side has fewer than two tokens of output."""
    source, goal = _drawn(own.sum(1), places[..., 0], places[..., 1])
    _, bad = _drawn(other.sum(1), places[..., 2], places[..., 3])
    start, good, wrong = _at(chosen, own, source), _at(chosen, own, goal), _at(rejected, other, bad)
    near = torch.cosine_similarity(start, good, dim=-1)
    far = torch.cosine_similarity(start, wrong, dim=-1)
    value = -(torch.nn.functional.logsigmoid(near) + torch.nn.functional.logsigmoid(-far)).mean(1)
    return value.where((own.sum(1) > 1) & (other.sum(1) > 1), 0.0)


def _drawn(
    count: Int[Tensor, " B"], first: Float[Tensor, "B n"], second: Float[Tensor, "B n"]
) -> tuple[Int[Tensor, "B n"], Int[Tensor, "B n"]]:
    """The numbers i < j of tokens among `count`."""
    last = (count - 1).clamp(min=0)[:, None]
    i = (first * last).long()
    j = i + 1 + (second * (last - i)).long()
    return i, j.minimum(last)


def _at(states: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"], number: Int[Tensor, "B n"]) -> Tensor:
    """The states of the output's tokens of these numbers, wherever in the row they stand."""
    order = (~mask).long().argsort(dim=1, stable=True)
    place = order.gather(1, number)
    return states.gather(1, place[..., None].expand(-1, -1, states.shape[-1]))


__all__ = ["Goals", "goal_loss"]
