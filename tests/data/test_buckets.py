"""Batches of rows of several shapes: each of one shape, all rows as often, for any number of processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data.batches import Batches
from mmalign.data.mixed_rows import BLOCK, MixedRows


class Shapes(Sequence[Any]):
    """Rows that are their own number, each of the shape that is said."""

    def __init__(self, buckets: Sequence[int]) -> None:
        self.buckets = list(buckets)

    def __len__(self) -> int:
        return len(self.buckets)

    def __getitem__(self, index: Any) -> Any:
        return index


BUCKETS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(BUCKETS, st.integers(1, 6), st.integers(0, 5))
def test_batches_of_one_shape_deal_the_order_but_for_the_rows_that_wait(
    buckets: list[int], size: int, seed: int
) -> None:
    plain, batches = Batches(list(range(len(buckets))), 1, seed), Batches(Shapes(buckets), size, seed)
    dealt: list[int] = []
    for _ in range(3 * len(buckets) // size + 3):
        batch = next(batches)
        assert len(batch) == size and len({buckets[i] for i in batch}) == 1
        dealt += batch
        waiting = Counter(buckets[index] for index, _ in batches.waiting)
        assert all(count < size for count in waiting.values())
    drawn = [next(plain)[0] for _ in range(len(dealt) + len(batches.waiting))]
    assert Counter(drawn) == Counter(dealt) + Counter(index for index, _ in batches.waiting)
    for bucket in set(buckets):  # the rows of each shape stay in the order in which they were drawn
        own = [i for i in dealt if buckets[i] == bucket]
        assert own == [i for i in drawn if buckets[i] == bucket][: len(own)]
    assert batches.epoch == len(dealt) / len(buckets)


@given(BUCKETS, st.integers(0, 5))
def test_processes_walk_one_order(buckets: list[int], seed: int) -> None:
    whole, halves = Batches(Shapes(buckets), 4, seed), [Batches(Shapes(buckets), 4, seed, rank, 2) for rank in (0, 1)]
    for _ in range(12):
        assert next(whole) == [*next(halves[0]), *next(halves[1])]


@pytest.mark.parametrize("world", [1, 3])
def test_a_resumed_order_goes_on(world: int) -> None:
    buckets = [0, 1, 1, 2, 2, 2, 0, 1, 0, 0, 2]
    whole = Batches(Shapes(buckets), 3, 7)
    seen = [next(whole) for _ in range(9)]
    first = Batches(Shapes(buckets), 3, 7)
    for _ in range(4):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    later = [Batches(Shapes(buckets), 3, 7, rank, world) for rank in range(world)]
    for each in later:
        each.load_state_dict(state)
    assert state["waiting"] and [[i for each in later for i in next(each)] for _ in range(5)] == seen[4:]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_of_another_size_lose_and_repeat_nothing(size: int) -> None:
    buckets = [0, 1, 1, 2, 2, 2, 0, 1, 0, 0, 2]
    first = Batches(Shapes(buckets), 3, 7)
    dealt = [i for _ in range(4) for i in next(first)]
    later = Batches(Shapes(buckets), size, 7)
    later.load_state_dict(first.state_dict())
    for _ in range(12):
        batch = next(later)
        assert len({buckets[i] for i in batch}) == 1
        dealt += batch
    plain = Batches(list(range(len(buckets))), 1, 7)
    drawn = Counter(next(plain)[0] for _ in range(len(dealt) + len(later.waiting)))
    assert drawn == Counter(dealt) + Counter(index for index, _ in later.waiting)


def test_other_buckets_than_the_checkpoints_begin_a_new_pass(caplog: pytest.LogCaptureFixture) -> None:
    first = Batches(list(range(5)), 3, 7)
    next(first)
    later = Batches(Shapes([0, 1, 1, 2, 2]), 2, 7)
    later.load_state_dict(first.state_dict())
    assert later.epoch == 1 and "a new pass over the rows begins" in caplog.text
    filled = Batches(Shapes([0, 1, 1, 2, 2]), 2, 7)  # a state of when the last batch of a bucket was filled up
    filled.load_state_dict({"position": 9, "seed": 7, "items": 5, "pass": 6})
    assert filled.position == 10


class Mixed(MixedRows):
    """A mixture of rows of several shapes: row i is of shape i % 3."""

    @property
    def buckets(self) -> list[int]:
        return [row % 3 for row in self]


@pytest.mark.parametrize("world", [1, 2])
def test_shares_are_exact_but_for_the_rows_that_wait_and_passes_of_a_part_are_whole(world: int) -> None:
    parts = {"a": range(50), "b": range(50, 57)}

    def batches() -> list[Batches[int]]:
        rows = Mixed("prompts", parts, {"a": 0.7, "b": 0.3})
        return [Batches(rows, 8, 3, rank, world) for rank in range(world)]

    all_of = batches()
    dealt = [[i for each in all_of for i in next(each)] for _ in range(BLOCK // 8)]
    assert all(len({i % 3 for i in batch}) == 1 for batch in dealt)
    waiting = all_of[0].waiting
    assert len(waiting) <= 3 * 7
    drawn = BLOCK + len(waiting)
    plain = Batches(MixedRows("prompts", parts, {"a": 0.7, "b": 0.3}), 1, 3)
    block = Counter(next(plain)[0] < 50 for _ in range(BLOCK))
    assert block == {True: 7000, False: 3000}  # of what is drawn, exact in each block
    own = Counter(i < 50 for batch in dealt for i in batch)
    assert abs(own[True] - 7000) <= len(waiting)
    counts = Counter(i for batch in dealt for i in batch) + Counter(index for index, _ in waiting)
    assert sum(counts.values()) == drawn
    for name in "ab":  # all rows of a part have come as often, or once more
        assert max(counts[i] for i in parts[name]) - min(counts[i] for i in parts[name]) <= 1
    state = json.loads(json.dumps(all_of[0].state_dict()))
    expected = [[i for each in all_of for i in next(each)] for _ in range(40)]
    again = Batches(Mixed("prompts", parts, {"a": 0.7, "b": 0.3}), 8, 3)
    again.load_state_dict(state)
    assert [next(again) for _ in range(40)] == expected
