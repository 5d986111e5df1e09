"""The stream of batches: nothing left out, equal parts per process, the same order for any split, exact resumption."""

import json
from itertools import chain, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.data.batches import Batches


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 5))
def test_ranks_partition_one_global_order(items: int, share: int, world: int, seed: int) -> None:
    size = share * world
    alone = Batches(range(items), size, seed)
    ranks = [Batches(range(items), size, seed, rank, world) for rank in range(world)]
    for _ in range(4):
        parts = [next(rank) for rank in ranks]
        assert [len(part) for part in parts] == [share] * world
        assert list(chain.from_iterable(parts)) == next(alone)


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 7), st.integers(0, 5))
def test_every_epoch_holds_every_item_once(items: int, size: int, seed: int) -> None:
    stream = Batches(range(items), size, seed)
    taken = [item for batch in islice(stream, -(-3 * items // size)) for item in batch]
    for epoch in range(3):
        assert sorted(taken[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(item for batch in islice(Batches(range(50), 10, seed), 5) for item in batch) for seed in range(4)
    } | {tuple(list(chain.from_iterable(islice(Batches(range(50), 10, 0), 10)))[50:])}
    assert len(orders) == 5


@settings(max_examples=50)
@given(st.integers(0, 12), st.integers(1, 9), st.integers(2, 11))
def test_resumed_stream_continues_exactly(before: int, size: int, items: int) -> None:
    whole = list(islice(Batches(range(items), size, 7), before + 5))
    first = Batches(range(items), size, 7)
    list(islice(first, before))
    second = Batches(range(items), size, 7)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert list(islice(second, 5)) == whole[before:]
    assert first.epoch == before * size / items


def test_resume_on_another_number_of_processes() -> None:
    alone = Batches(range(10), 4, 0)
    next(alone)
    pair = [Batches(range(10), 4, 0, rank, 2) for rank in range(2)]
    for rank in pair:
        rank.load_state_dict(alone.state_dict())
    assert next(pair[0]) + next(pair[1]) == next(alone)


def test_only_own_items_are_indexed() -> None:
    touched = []

    class Watched(list):
        def __getitem__(self, index):
            touched.append(index)
            return super().__getitem__(index)

    batch = next(Batches(Watched(range(100)), 8, 0, rank=1, world=4))
    assert len(touched) == 2 and batch == touched


def test_faults() -> None:
    with pytest.raises(DataError, match="there are no items to make batches of"):
        Batches([], 4, 0)
    with pytest.raises(
        ConfigError, match=r"trainer\.prompts_per_step: 10 does not divide by 4 processes; use e\.g\. 8, 12, 16"
    ):
        Batches(range(9), 10, 0, 0, 4)
    with pytest.raises(ConfigError, match="rank 4 is outside the 4 processes"):
        Batches(range(9), 8, 0, 4, 4)
    stream = Batches(range(9), 3, 0)
    with pytest.raises(CheckpointError, match="made with items = 8, this run has 9; resume with the same data"):
        stream.load_state_dict({"position": 3, "seed": 0, "items": 8})
    with pytest.raises(CheckpointError, match="made with seed = 1, this run has 0"):
        stream.load_state_dict({"position": 3, "seed": 1, "items": 9})
