"""Batches of rows of several shapes: each of one shape, every row in each pass, for any number of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data.batches import Batches


class Shapes(Sequence[Any]):
    """Rows that are their own number; row i is of shape i % kinds, but for the first few that are of none other."""

    def __init__(self, buckets: Sequence[int]) -> None:
        self.buckets = list(buckets)

    def __len__(self) -> int:
        return len(self.buckets)

    def __getitem__(self, index: Any) -> Any:
        return index


BUCKETS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@given(BUCKETS, st.integers(1, 6), st.integers(0, 5))
def test_every_batch_is_of_one_shape_and_a_pass_holds_every_row(buckets: list[int], size: int, seed: int) -> None:
    batches = Batches(Shapes(buckets), size, seed)
    for _ in range(2):
        rows = [next(batches) for _ in range(batches.pass_length // size)]
        assert all(len({buckets[i] for i in batch}) == 1 for batch in rows)
        counted = Counter(i for batch in rows for i in batch)
        assert set(counted) == set(range(len(buckets)))
        assert batches.pass_length - len(buckets) < size * len(set(buckets))
    assert batches.epoch == 2


@given(BUCKETS, st.integers(0, 5))
def test_processes_walk_one_order(buckets: list[int], seed: int) -> None:
    whole, halves = Batches(Shapes(buckets), 4, seed), [Batches(Shapes(buckets), 4, seed, rank, 2) for rank in (0, 1)]
    for _ in range(12):
        assert next(whole) == [*next(halves[0]), *next(halves[1])]


def test_a_resumed_order_goes_on() -> None:
    buckets = [0, 1, 1, 2, 2, 2, 0, 1, 0, 0, 2]
    whole = Batches(Shapes(buckets), 3, 7)
    seen = [next(whole) for _ in range(9)]
    first = Batches(Shapes(buckets), 3, 7)
    for _ in range(4):
        next(first)
    later = Batches(Shapes(buckets), 3, 7)
    later.load_state_dict(first.state_dict())
    assert [next(later) for _ in range(5)] == seen[4:]


def test_batches_of_another_size_begin_a_new_pass(caplog: pytest.LogCaptureFixture) -> None:
    first = Batches(Shapes([0, 1, 1, 2, 2]), 3, 7)
    next(first)
    later = Batches(Shapes([0, 1, 1, 2, 2]), 2, 7)
    later.load_state_dict(first.state_dict())
    assert later.epoch == 1 and "a new pass over the rows begins" in caplog.text
