"""Which outputs are contrasted: rows ranked by a score, or two whole sets searched for by DRAGON.

`greedy_swap` (reconstruction of DRAGON's algorithm 1 from its text and table 5): of two sets, one output per prompt in
each, start with the better as D⁺; go through the prompts; where exchanging the two outputs raises r(D⁺) (or the gap
r(D⁺) - r(D⁻)) do it, and judge the next one against the new set. Both sets keep one output per prompt, so their prompts
are distributed alike. Choosing all rows at once by their single influence can end below the start; re-scoring cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Pairs
from mmalign.core.protocols import Reward, SetReward
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.rewards.engine.traits import RewardTraits

Accept = Literal["positive", "gap"]
Ranking = tuple[Int[Tensor, " P"], Int[Tensor, " P"], Bool[Tensor, " P"]]  # better rows, worse rows, do they differ?


def best_and_worst(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"], size: int) -> Ranking:
    """Row numbers of the best and the worst valid output of each group of `size` rows, and whether they differ."""
    table, is_valid = value.reshape(-1, size), valid.reshape(-1, size)
    first = torch.arange(len(table), device=value.device) * size
    best, worst = table.masked_fill(~is_valid, -torch.inf).argmax(1), table.masked_fill(~is_valid, torch.inf).argmin(1)
    return _ordered(value, valid, first + best, first + worst)


def all_pairs(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"], size: int) -> Ranking:
    """Every two outputs of each group of `size` rows, better first: size (size - 1) / 2 pairs per group."""
    groups = len(value) // size
    i, j = torch.triu_indices(size, size, 1, device=value.device)
    first = torch.arange(groups, device=value.device).repeat_interleave(len(i)) * size
    left, right = first + i.repeat(groups), first + j.repeat(groups)
    better = value[left].nan_to_num(-torch.inf) >= value[right].nan_to_num(-torch.inf)
    return _ordered(value, valid, torch.where(better, left, right), torch.where(better, right, left))


def neighbours(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"]) -> Ranking:
    """Rows 0 and 1, 2 and 3, …, better first: the instance-wise sets of DRAGON."""
    left = torch.arange(0, len(value), 2, device=value.device)
    better = value[left].nan_to_num(-torch.inf) >= value[left + 1].nan_to_num(-torch.inf)
    return _ordered(value, valid, torch.where(better, left, left + 1), torch.where(better, left + 1, left))


def halves_of_pool(value: Float[Tensor, " B"], valid: Bool[Tensor, " B"]) -> Ranking:
    """Return the top half of all valid rows and the bottom half, whatever their prompts: k-th best with k-th worst."""
    order = value.masked_fill(~valid, -torch.inf).argsort(descending=True, stable=True)
    place = torch.arange(len(value) // 2, device=value.device)
    last = valid.sum() - 1 - place
    better, worse, mask = _ordered(value, valid, order[place], order[last.clamp(min=0)])
    return better, worse, mask & (place < last)


def pairs_of_rows(rollout: Rollout, better: Tensor, worse: Tensor, mask: Tensor, value: Float[Tensor, " B"]) -> Pairs:
    """Pairs of two sets of rows; skipped ones stay as masked rows, so that every process has as many."""
    gap = (value[better] - value[worse]).where(mask, 0.0)
    return Pairs(chosen=rollout[better], rejected=rollout[worse], mask=mask, gap=gap)


def _ordered(value: Tensor, valid: Tensor, better: Tensor, worse: Tensor) -> Ranking:
    return better, worse, valid[better] & valid[worse] & (value[better] > value[worse])


@runtime_checkable
class HasMembers(Protocol):
    """A reward made of others: a mix."""

    @property
    def members(self) -> Mapping[str, tuple[Reward | SetReward, float]]:
        """Return each of them with its weight, by name."""
        ...


@runtime_checkable
class ScoresSets(Protocol):
    """The side of a `SetReward` that sets are compared by."""

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Return one row per output, NaN for one that cannot be embedded."""
        ...

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """Return the set's value; higher is better."""
        ...


@dataclass(frozen=True)
class SetMember:
    """A set reward, its weight in the sum, and its own way to score sets that differ in a row, if it has one.

    `swap_scores(kept (n, D), other (n, D), start) -> (n - start,)` is that of `RewardTraits`.
    """

    reward: ScoresSets
    weight: float = 1.0
    swap_scores: Callable[[Tensor, Tensor, int], Float[Tensor, " S"]] | None = None


@dataclass
class EmbeddedOutputs:
    """Outputs embedded once, any subset of which is then cheap to score: a weighted sum of set rewards."""

    members: Sequence[SetMember]
    embeddings: list[Float[Tensor, "N D"]]

    @classmethod
    def of(cls, members: Sequence[SetMember], rollout: Rollout) -> EmbeddedOutputs:
        """Embed the N rows once by each of `members` (`set_rewards`); ScoreError where one can embed none."""
        return cls(members, [member.reward.embed(rollout) for member in members])

    @property
    def finite(self) -> Bool[Tensor, " N"]:
        """(N,) which rows have embeddings that are finite under every reward, on the CPU."""
        each = [embedding.detach().flatten(1).isfinite().all(1).cpu() for embedding in self.embeddings]
        return torch.stack(each).all(0)

    def value(self, rows: Int[Tensor, " n"]) -> float:
        """Return Σ weight × score of the set of these n rows, in the units of the rewards; higher is better."""
        return sum(
            member.weight * float(member.reward.score(embedding[rows.to(embedding.device)]))
            for member, embedding in zip(self.members, self.embeddings, strict=True)
        )

    def values_with(self, rows: Int[Tensor, " n"], other: Int[Tensor, " n"], start: int) -> Iterator[float]:
        """The value of the set with the row at one place given way to that of `other`, for each place from `start` on.

        Lazy, one set at a time; at once where every reward has `swap_scores`, which it should where that is cheaper.
        """
        swaps = [member.swap_scores for member in self.members if member.swap_scores is not None]
        if len(swaps) == len(self.members):
            gains = [
                member.weight * swap(e[rows.to(e.device)], e[other.to(e.device)], start).double()
                for swap, member, e in zip(swaps, self.members, self.embeddings, strict=True)
            ]
            yield from sum(gains[1:], gains[0]).tolist()
        else:
            for place in range(start, len(rows)):
                trial = rows.clone()
                trial[place] = other[place]
                yield self.value(trial)


def set_rewards(reward: Reward | SetReward | HasMembers) -> list[SetMember]:
    """Return the set rewards behind `reward`, with their weights.

    Raises:
        CapabilityError: it, or one of its `members`, only scores single rows.
    """
    named = reward.members if isinstance(reward, HasMembers) else {"reward": (reward, 1.0)}
    sets = {name: (member, weight) for name, (member, weight) in named.items() if isinstance(member, ScoresSets)}
    if rowwise := [name for name in named if name not in sets]:
        raise CapabilityError(
            f"builder greedy_swap re-scores whole sets, and {', '.join(rowwise)} only scores single rows; "
            "use a set reward such as frechet or vendi, or builder: pair."
        )
    return [SetMember(member, weight, RewardTraits.of(member).swap_scores) for member, weight in sets.values()]


def greedy_swap(
    outputs: EmbeddedOutputs,
    first: Int[Tensor, " n"],
    second: Int[Tensor, " n"],
    sweeps: int = 1,
    accept: Accept = "positive",
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], float, float]:
    """Rows of D⁺ and D⁻ and their values, from two candidate rows per prompt; stops early at a sweep without swaps."""
    up, down = first.clone(), second.clone()
    if outputs.value(down) > outputs.value(up):
        up, down = down, up
    threshold = outputs.value(up) - (outputs.value(down) if accept == "gap" else 0.0)
    for _ in range(sweeps):
        before, place = threshold, 0
        while (swap := _next_swap(outputs, up, down, place, threshold, accept)) is not None:
            place, threshold = swap
            up[place], down[place] = down[place].clone(), up[place].clone()
            place += 1
        if threshold == before:
            break
    return up, down, outputs.value(up), outputs.value(down)


def tournament(
    outputs: EmbeddedOutputs, columns: Int[Tensor, "n k"], sweeps: int = 1, accept: Accept = "positive"
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], float, float]:
    """Run `greedy_swap` in rounds over k (a power of two) candidate rows per prompt: better against better sets.

    Worse sets meet worse ones. The two sets that are left hold one row per prompt each, further apart than two drawn
    sets can be.
    """
    ups = downs = list(columns.unbind(1))
    while len(ups) > 1:
        winners = [
            greedy_swap(outputs, one, other, sweeps, accept) for one, other in zip(ups[::2], ups[1::2], strict=True)
        ]
        losers = winners
        if downs is not ups:
            rounds = zip(downs[::2], downs[1::2], strict=True)
            losers = [greedy_swap(outputs, one, other, sweeps, accept) for one, other in rounds]
        ups, downs = [match[0] for match in winners], [match[1] for match in losers]
    return ups[0], downs[0], outputs.value(ups[0]), outputs.value(downs[0])


def _next_swap(
    outputs: EmbeddedOutputs, up: Tensor, down: Tensor, start: int, threshold: float, accept: Accept
) -> tuple[int, float] | None:
    """The first place from `start` on whose exchange beats `threshold`, and the value of the contrast after it."""
    high = outputs.values_with(up, down, start)
    low = outputs.values_with(down, up, start) if accept == "gap" else repeat(0.0)
    values = (up_value - down_value for up_value, down_value in zip(high, low, strict=False))
    return next(((place, value) for place, value in enumerate(values, start) if value > threshold), None)


__all__ = [
    "Accept",
    "EmbeddedOutputs",
    "HasMembers",
    "Ranking",
    "ScoresSets",
    "SetMember",
    "all_pairs",
    "best_and_worst",
    "greedy_swap",
    "halves_of_pool",
    "neighbours",
    "pairs_of_rows",
    "set_rewards",
    "tournament",
]
