from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives._selection import EmbeddedOutputs, greedy_swap, set_rewards, tournament
from tests.objectives.driving import Fixed
from tests.toys import NearGaussian


@dataclass
class Additive:
    """The mean of the rows: greedy swapping must then find the best set."""

    modalities = frozenset({"image"})
    differentiable = False

    def embed(self, rollout: Any) -> torch.Tensor:
        return rollout

    def score(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding.mean()

    def credit(self, embedding: torch.Tensor) -> torch.Tensor:
        return (embedding - embedding.mean()).flatten() / len(embedding)


class FastGaussian(NearGaussian):
    calls = 0

    def swap_scores(self, kept: torch.Tensor, other: torch.Tensor, start: int) -> torch.Tensor:
        type(self).calls += 1
        sets = [torch.cat([kept[:i], other[i : i + 1], kept[i + 1 :]]) for i in range(start, len(kept))]
        return torch.stack([self.score(s) for s in sets])


def pool(reward: Any, rows: torch.Tensor) -> EmbeddedOutputs:
    return EmbeddedOutputs(set_rewards(reward), [rows])


def every_set(pool: EmbeddedOutputs, count: int) -> list[float]:
    rows = [torch.tensor([2 * i + bit for i, bit in enumerate(bits)]) for bits in product((0, 1), repeat=count)]
    return [pool.value(r) for r in rows]


def halves(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(2 * count)
    return rows[0::2], rows[1::2]


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 10_000))
def test_additive_rewards_reach_the_best_and_the_worst_set(count: int, seed: int) -> None:
    rows = torch.randn(2 * count, 1, generator=torch.Generator().manual_seed(seed))
    chosen, rejected, high, low = greedy_swap(pool(Additive(), rows), *halves(count))
    values = every_set(pool(Additive(), rows), count)
    assert high == pytest.approx(max(values)) and low == pytest.approx(min(values))
    assert torch.equal(chosen // 2, rejected // 2) and (chosen != rejected).all()


@settings(max_examples=30)
@given(st.integers(2, 4), st.integers(0, 10_000), st.sampled_from(["positive", "gap"]))
def test_swaps_never_lose_and_never_beat_brute_force(count: int, seed: int, accept: str) -> None:
    rows = 1.5 * torch.randn(2 * count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sets = pool(NearGaussian(), rows)
    first, second = halves(count)
    start = sorted([sets.value(first), sets.value(second)])
    last = start[1] if accept == "positive" else start[1] - start[0]
    for sweeps in (1, 2, 5):
        chosen, rejected, high, low = greedy_swap(sets, first, second, sweeps, accept)  # type: ignore[arg-type]
        worth = high if accept == "positive" else high - low
        assert worth >= last
        assert high <= max(every_set(sets, count)) + 1e-12
        assert high == sets.value(chosen) and low == sets.value(rejected)
        assert torch.equal(chosen // 2, first // 2)  # one output per prompt in both sets
        last = worth


@settings(max_examples=30)
@given(st.integers(1, 3), st.sampled_from([2, 4, 8]), st.integers(0, 10_000))
def test_a_knockout_of_additive_rewards_leaves_the_best_and_the_worst_of_each_prompt(n: int, k: int, seed: int) -> None:
    rows = torch.randn(n * k, 1, generator=torch.Generator().manual_seed(seed))
    table = rows.view(n, k)
    chosen, rejected, high, low = tournament(pool(Additive(), rows), torch.arange(n * k).view(n, k))
    assert torch.equal(rows[chosen, 0], table.amax(1)) and torch.equal(rows[rejected, 0], table.amin(1))
    assert high >= low


def test_a_knockout_parts_two_sets_further_than_pairs_do() -> None:
    rows = torch.randn(48, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    columns = torch.arange(48).view(12, 4)
    sets = pool(NearGaussian(), rows)
    _, _, high, low = greedy_swap(sets, columns[:, 0], columns[:, 1])
    chosen, rejected, higher, lower = tournament(sets, columns)
    assert higher > high and lower < low
    assert (chosen // 4).equal(torch.arange(12)) and (rejected // 4).equal(torch.arange(12))


def test_at_convergence_no_single_swap_helps() -> None:
    rows = torch.randn(24, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sets = pool(NearGaussian(), rows)
    chosen, rejected, high, _ = greedy_swap(sets, *halves(12), sweeps=50)
    for place in range(12):
        trial = chosen.clone()
        trial[place] = rejected[place]
        assert sets.value(trial) <= high
    first, second = halves(12)
    assert high > max(sets.value(first), sets.value(second)) + 0.01


def test_a_cheap_swap_method_gives_the_same_sets() -> None:
    rows = torch.randn(16, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for accept in ("positive", "gap"):
        slow = greedy_swap(pool(NearGaussian(), rows), *halves(8), 3, accept)
        fast = greedy_swap(pool(FastGaussian(), rows), *halves(8), 3, accept)
        assert torch.equal(slow[0], fast[0]) and torch.equal(slow[1], fast[1])
    assert FastGaussian.calls > 0


def test_members_of_a_mix_add_up_and_row_rewards_are_refused() -> None:
    rollout = Rollout([Prompt("a")] * 4, torch.randn(4, 1, 1, 2), torch.arange(4))

    class Mix:
        members = {"near": (NearGaussian(), 2.0), "far": (NearGaussian(mean=-1.0), 0.5)}

    both = EmbeddedOutputs.of(set_rewards(Mix()), rollout)
    rows = torch.tensor([0, 2])
    parts = [float(r.score(r.embed(rollout)[rows])) for r in (NearGaussian(), NearGaussian(mean=-1.0))]
    assert both.value(rows) == pytest.approx(2 * parts[0] + 0.5 * parts[1])
    Mix.members = {**Mix.members, "aesthetic": (Fixed([1.0]), 1.0)}  # type: ignore[dict-item]
    with pytest.raises(CapabilityError, match=r"re-scores whole sets, and aesthetic only scores.*builder: pair"):
        EmbeddedOutputs.of(set_rewards(Mix()), rollout)
