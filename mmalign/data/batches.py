"""An endless stream of batches that is the same for any number of processes and continues where it stopped.

All processes walk one global order: epoch after epoch, each a fresh permutation from a stream named by its number.
Batch k is the next `size` items of it; process r of w takes the r-th of w equal parts. Hence: every process gets the
same number of items, each item (so each group of samples drawn for it) lives on one process, and no item is left out:
a batch at the end of an epoch is filled from the next one. An item that this repeats in a batch is two entries there.

Where items have buckets (pictures of several shapes) every batch is of one bucket, see `in_buckets`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor

Item = TypeVar("Item")


@runtime_checkable
class Redrawn(Protocol):
    """Items of which some look different in each pass (a stretch of a sound, from anywhere)."""

    def at(self, index: int, epoch: int) -> Any:
        """Item `index` as it is in pass `epoch`."""
        ...


@runtime_checkable
class Placed(Protocol):
    """Items that say themselves which of them comes next."""

    def place_at(self, position: int, seed: int) -> int | None:
        """The index of the item at a position of the run; None where an order is drawn as for all others."""
        ...


@runtime_checkable
class Bucketed(Protocol):
    """Items of which not all may share a batch (pictures of several shapes)."""

    @property
    def buckets(self) -> Sequence[Hashable]:
        """See `bucket_of_each`."""
        ...


def bucket_of_each(items: Sequence[Any]) -> Sequence[Hashable]:
    """What the items of a batch must have in common, of each item; empty where all go together."""
    return items.buckets if isinstance(items, Bucketed) else ()


def in_buckets(order: Sequence[int], buckets: Sequence[Hashable], size: int, rng: torch.Generator) -> list[int]:
    """The indices in `order` so that every `size` of them, from the first on, are of one bucket.

    The last batch of each bucket is filled with rows of it that stand in its first ones, other ones in each pass; the
    order of the batches is drawn.
    """
    rows: dict[Hashable, list[int]] = {}
    for index in order:
        rows.setdefault(buckets[index], []).append(index)
    batches = []
    for of_bucket in rows.values():
        missing = -len(of_bucket) % size
        filled = (of_bucket * (1 + -(-missing // len(of_bucket))))[: len(of_bucket) + missing]
        batches += [filled[start : start + size] for start in range(0, len(filled), size)]
    drawn = torch.randperm(len(batches), generator=rng).tolist()
    return [index for batch in drawn for index in batches[batch]]


log = logging.getLogger("mmalign")


class Batches(Generic[Item]):
    """Deals `items` out in batches, shuffled once an epoch, to one of the processes that train together.

    Args:
        items: prompts or preferences; only the items of this process are indexed (lazy ones decode then).
        size: items per batch over all processes; must divide by `world`.
        seed: the run's seed.
        rank, world: this process and how many there are.

    Raises:
        DataError: no items.
        ConfigError: the size does not divide.
    """

    def __init__(self, items: Sequence[Item], size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if not len(items):
            raise DataError("there are no items to make batches of; the data's training side is empty.")
        if size <= 0 or size % world:
            fits = ", ".join(str(world * k) for k in range(max(1, size // world), size // world + 3))
            raise ConfigError(
                f"trainer.prompts_per_step: {size} does not divide by {world} processes; use e.g. {fits}."
            )
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is outside the {world} processes 0 … {world - 1}.")
        self.items, self.size, self.seed, self.rank, self.world = items, size, seed, rank, world
        self.position = 0
        self.other_data = False  # may a state of another number of items be continued?
        self._order: tuple[int, Tensor] | None = None
        self.buckets = bucket_of_each(items)
        counts = Counter(self.buckets)
        self.pass_length = sum(-(-count // size) * size for count in counts.values()) or len(items)

    @property
    def epoch(self) -> float:
        """Passes over the items so far."""
        return self.position / self.pass_length

    def __iter__(self) -> Iterator[list[Item]]:
        return self

    def __next__(self) -> list[Item]:
        share = self.size // self.world
        start = self.position + self.rank * share
        batch = [self._item(i) for i in range(start, start + share)]
        self.position += self.size
        return batch

    def _item(self, position: int) -> Item:
        epoch, offset = divmod(position, self.pass_length)
        if self._order is None or self._order[0] != epoch:
            rng = stream(self.seed, "shuffle", epoch)
            order = torch.randperm(len(self.items), generator=rng)
            if self.buckets:
                order = torch.tensor(in_buckets(order.tolist(), self.buckets, self.size, rng))
            self._order = epoch, order
        placed = self.items.place_at(position, self.seed) if isinstance(self.items, Placed) else None
        index = int(self._order[1][offset]) if placed is None else placed
        return self.items.at(index, epoch) if isinstance(self.items, Redrawn) else self.items[index]

    def state_dict(self) -> dict[str, int]:
        """Return where the stream is; the same on every process, plain numbers."""
        return {"position": self.position, "seed": self.seed, "items": len(self.items), "pass": self.pass_length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state`; the number of processes and the batch size may have changed.

        With `other_data` the number of items may, too: a new pass over these then begins.

        Raises:
            CheckpointError: the state belongs to other data or another seed.
        """
        length = state.get("pass", state.get("items", len(self.items)))
        if self.other_data and state["items"] != len(self.items):
            passes = -(-state["position"] // length)
            self.position = passes * self.pass_length
            log.warning(
                "the checkpoint's data order was of %d rows and there are %d now: pass %d over these begins.",
                *(state["items"], len(self.items), passes + 1),
            )
            return
        for name, mine in (("seed", self.seed), ("items", len(self.items))):
            if state[name] != mine:
                raise CheckpointError(
                    f"the checkpoint's data order was made with {name} = {state[name]}, this run has {mine}; "
                    "resume with the same data and seed"
                    + (", set trainer.other_data=true to go on with a new order of these" if name == "items" else "")
                    + ", or start a new run."
                )
        if length != self.pass_length:  # buckets are filled to whole batches, which are of another size now
            self.position = -(-state["position"] // length) * self.pass_length
            log.warning("batches of buckets have another size than the checkpoint's: a new pass over the rows begins.")
            return
        self.position = state["position"]
