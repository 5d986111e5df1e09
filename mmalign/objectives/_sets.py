"""The value of a set of outputs, and DRAGON's search for a better and a worse set of the same prompts.

`greedy_swap` (reconstruction of DRAGON's algorithm 1 from its text and table 5): of two sets, one output per prompt in
each, start with the better as D⁺; go through the prompts; where exchanging the two outputs raises r(D⁺) (or the gap
r(D⁺) - r(D⁻)) do it, and judge the next one against the new set. Both sets keep one output per prompt, so their prompts
are distributed alike. Choosing all rows at once by their single credit can end below the start; re-scoring cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout

Accept = Literal["positive", "gap"]


@dataclass
class Pool:
    """Outputs embedded once, any subset of which is then cheap to score: a weighted sum of set rewards."""

    members: list[tuple[Any, float]]
    embeddings: list[Float[Tensor, "N D"]]

    @classmethod
    def of(cls, reward: Any, rollout: Rollout) -> Pool:
        """Embed every row. Raises CapabilityError unless the reward, or each of its `members`, is a SetReward."""
        members = set_members(reward)
        return cls(members, [member.embed(rollout) for member, _ in members])

    @property
    def sound(self) -> Bool[Tensor, " N"]:
        """Rows whose embeddings are all finite."""
        finite = [embedding.detach().flatten(1).isfinite().all(1).cpu() for embedding in self.embeddings]
        return torch.stack(finite).all(0)

    def value(self, rows: Int[Tensor, " n"]) -> float:
        """The score of the set of these rows."""
        return sum(
            weight * float(member.score(embedding[rows.to(embedding.device)]))
            for (member, weight), embedding in zip(self.members, self.embeddings, strict=True)
        )

    def values_with(self, rows: Int[Tensor, " n"], other: Int[Tensor, " n"], start: int) -> Iterator[float]:
        """The value of the set with the row at one place given way to that of `other`, for each place from `start` on.

        Lazy, one set at a time; at once where every reward offers
        `swap_scores(kept (n, D), other (n, D), start) -> (n - start,)`, which it should where that is cheaper.
        """
        if all(hasattr(member, "swap_scores") for member, _ in self.members):
            yield from sum(
                weight * member.swap_scores(e[rows.to(e.device)], e[other.to(e.device)], start).double()
                for (member, weight), e in zip(self.members, self.embeddings, strict=True)
            ).tolist()
            return
        for place in range(start, len(rows)):
            trial = rows.clone()
            trial[place] = other[place]
            yield self.value(trial)


def set_members(reward: Any) -> list[tuple[Any, float]]:
    """The set rewards behind `reward` with their weights."""
    named: Mapping[str, tuple[Any, float]] = getattr(reward, "members", {"reward": (reward, 1.0)})
    if rowwise := [name for name, (member, _) in named.items() if not is_set(member)]:
        raise CapabilityError(
            f"builder greedy_swap re-scores whole sets, and {', '.join(rowwise)} only scores single rows; "
            "use a set reward such as frechet or vendi, or builder: pair."
        )
    return list(named.values())


def is_set(reward: Any) -> bool:
    """Does it score sets?"""
    return hasattr(reward, "embed") and hasattr(reward, "score")


def greedy_swap(
    pool: Pool, first: Int[Tensor, " n"], second: Int[Tensor, " n"], sweeps: int = 1, accept: Accept = "positive"
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], float, float]:
    """Rows of D⁺ and D⁻ and their values, from two candidate rows per prompt; stops early at a sweep without swaps."""
    up, down = first.clone(), second.clone()
    if pool.value(down) > pool.value(up):
        up, down = down, up
    bar = pool.value(up) - (pool.value(down) if accept == "gap" else 0.0)
    for _ in range(sweeps):
        before, place = bar, 0
        while (found := _next_swap(pool, up, down, place, bar, accept)) is not None:
            place, bar = found
            up[place], down[place] = down[place].clone(), up[place].clone()
            place += 1
        if bar == before:
            break
    return up, down, pool.value(up), pool.value(down)


def knockout(
    pool: Pool, columns: Int[Tensor, "n k"], sweeps: int = 1, accept: Accept = "positive"
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], float, float]:
    """`greedy_swap` for `k` (a power of two) candidate rows per prompt: the better sets meet again, and the worse ones.

    The last two left hold one row per prompt each, further apart than two drawn sets can be.
    """
    ups = downs = list(columns.unbind(1))
    while len(ups) > 1:
        above = [greedy_swap(pool, one, other, sweeps, accept) for one, other in zip(ups[::2], ups[1::2], strict=True)]
        below = above
        if downs is not ups:
            met = zip(downs[::2], downs[1::2], strict=True)
            below = [greedy_swap(pool, one, other, sweeps, accept) for one, other in met]
        ups, downs = [match[0] for match in above], [match[1] for match in below]
    return ups[0], downs[0], pool.value(ups[0]), pool.value(downs[0])


def _next_swap(
    pool: Pool, up: Tensor, down: Tensor, start: int, bar: float, accept: Accept
) -> tuple[int, float] | None:
    """The first place from `start` on whose exchange beats `bar`, and the new bar."""
    high = pool.values_with(up, down, start)
    low = pool.values_with(down, up, start) if accept == "gap" else repeat(0.0)
    worths = (up_value - down_value for up_value, down_value in zip(high, low, strict=False))
    return next(((place, worth) for place, worth in enumerate(worths, start) if worth > bar), None)


__all__ = ["Accept", "Pool", "greedy_swap", "is_set", "knockout", "set_members"]
