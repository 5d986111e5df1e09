"""Losses in which rows enter one another: every row is a negative of the others, so that no row's loss is its own.

The gradient must not depend on how a minibatch is split over forwards and processes. So features come first: all rows'
are computed without gradient, a few rows at a time, and gathered from all processes; the loss of the whole minibatch is
differentiated with respect to them alone; and each row keeps `slope`, the derivative with respect to its own features.
A second forward, split in any way, then follows Σ slope · features, whose gradient is that of the whole. This is the
gradient cache of Gao et al. 2021 (GradCache, 2101.06983, sec. 3), over processes too. It costs a forward more.

Networks run without dropout, so both forwards agree; what is to be drawn (`_twins.py`) is drawn in `collect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float

from mmalign.core.experience import Experience
from mmalign.core.protocols import Gather
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rows
from mmalign.objectives._weights import weight_of

E = TypeVar("E", bound=Experience)
Facts = dict[str, Tensor]  # of rows, every entry (B, …)
RowLosses = Callable[[Float[Tensor, "N K D"], Facts], tuple[Float[Tensor, " N"], Mapping[str, Float[Tensor, " N"]]]]


@dataclass
class Tied(Rows):
    """What a row's loss needs of all rows: `slope` (B, K, D), its `loss` (B,), and its metrics, each (B,)."""

    slope: Float[Tensor, "B K D"]
    loss: Float[Tensor, " B"]
    seen: dict[str, Tensor]

    def surrogate(self, features: Float[Tensor, "B K D"]) -> Float[Tensor, ""]:
        """0, with the gradient of the weighted loss of all rows with respect to these rows' features."""
        return (self.slope * (features - features.detach())).sum()


def tied(
    read: Callable[[E], Float[Tensor, "B K D"]],
    losses: RowLosses,
    experience: E,
    facts: Facts,
    rows: int,
    gather: Gather,
    rank: int,
) -> Tied:
    """Tie the rows of a weighted minibatch together.

    Args:
        read: the K feature vectors of every row of a part.
        losses: the loss and metrics (N,) of every row from the features and facts of all; `facts["weight"]` (N,) is 0
            for rows that do not count, which must then be nobody's candidate.
        experience: this process's rows, weighted.
        facts: what `losses` needs besides of this process's rows.
        rows: of one forward.
        gather: what every process holds, in their order.
        rank: this one's place among them.
    """
    with torch.no_grad():
        own = torch.cat([read(experience[i : i + rows]) for i in range(0, len(experience), rows)])
    given = {"features": own, "weight": weight_of(experience), **facts}
    held = gather({name: value.cpu() for name, value in given.items()})
    every = {name: torch.cat([part[name] for part in held]).to(own.device) for name in given}
    with torch.enable_grad():
        features = every.pop("features").requires_grad_()
        value, seen = losses(features, every)
        (slope,) = torch.autograd.grad((every["weight"].to(value) * value).sum(), features)
    start = sum(len(part["weight"]) for part in held[:rank])
    mine = slice(start, start + len(experience))
    return Tied(slope[mine], value.detach()[mine], {name: each.detach()[mine] for name, each in seen.items()})


def need_tied(rows: Tied | None) -> Tied:
    """Return it. Raises ValueError for rows that were never tied: the loss of a part would be another one."""
    if rows is None:
        raise ValueError(
            "rows that enter one another's loss; call `tie_rows` on the whole weighted minibatch before splits."
        )
    return rows


__all__ = ["Facts", "Tied", "need_tied", "tied"]
