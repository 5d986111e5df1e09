"""An endless stream of batches that is the same for any number of processes and continues where it stopped.

All processes walk one global order: epoch after epoch, each a fresh permutation from a stream named by its number.
Batch k is the next `size` items of it; process r of w takes the r-th of w equal parts. Hence: every process gets the
same number of items, each item (so each group of samples drawn for it) lives on one process, and no item is left out:
a batch at the end of an epoch is filled from the next one. An item that this repeats in a batch is two entries there.

Where items have buckets (pictures of several shapes) every batch is of one bucket: the same order is walked, each item
waits with those of its bucket, and a batch is dealt as soon as `size` of them wait. So no item is repeated to fill a
batch, and what has been dealt is the order so far but for those that wait, fewer than `size` of each bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor

Item = TypeVar("Item")
Place = tuple[int, int]  # the index of an item, and in which pass over the items (over those of its part) it comes


@runtime_checkable
class Redrawn(Protocol):
    """Items of which some look different in each pass (a stretch of a sound, from anywhere)."""

    def at(self, index: int, epoch: int) -> Any:
        """Item `index` as it is in pass `epoch`."""
        ...


@runtime_checkable
class Placed(Protocol):
    """Items that say themselves which of them comes next."""

    def place_at(self, position: int, seed: int) -> Place | None:
        """The item at a position of the run, and its pass; None where an order is drawn as for all others."""
        ...


@runtime_checkable
class Together(Protocol):
    """Placed items of which so many that stand behind one another share a batch, on one process."""

    @property
    def together(self) -> int:
        """How many."""
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
        if isinstance(items, Together) and (size // world) % items.together:
            raise ConfigError(
                f"trainer.prompts_per_step: {size} on {world} processes is {size // world} each, and {items.together} "
                f"rows of the data go together; use a multiple of {items.together * world}."
            )
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is outside the {world} processes 0 … {world - 1}.")
        self.items, self.size, self.seed, self.rank, self.world = items, size, seed, rank, world
        self.position = 0  # items dealt so far, over all processes
        self.other_data = False  # may a state of another number of items be continued?
        self._order: tuple[int, Tensor] | None = None
        self.buckets = bucket_of_each(items)
        self.waiting: list[Place] = []  # drawn and not dealt yet, in the order in which they were drawn

    @property
    def epoch(self) -> float:
        """Passes over the items so far."""
        return self.position / len(self.items)

    def __iter__(self) -> Iterator[list[Item]]:
        return self

    def __next__(self) -> list[Item]:
        share = self.size // self.world
        mine = range(self.rank * share, (self.rank + 1) * share)
        if self.buckets:
            dealt = self._of_one_bucket()
            places = [dealt[i] for i in mine]
        else:
            places = [self._place(self.position + i) for i in mine]
        self.position += self.size
        return [self._item(*place) for place in places]

    def _of_one_bucket(self) -> list[Place]:
        """The first `size` items, in the order, that are of one bucket; those before them of other buckets wait on."""
        of_bucket: dict[Hashable, list[Place]] = {}
        for count, place in enumerate(self._from_the_first_waiting(), start=1):
            bucket = self.buckets[place[0]]
            mates = of_bucket.setdefault(bucket, [])
            mates.append(place)
            if len(mates) == self.size:
                others = [other for other in self.waiting[:count] if self.buckets[other[0]] != bucket]
                self.waiting = others + self.waiting[count:]
                return mates
        raise AssertionError("the order has no end")

    def _from_the_first_waiting(self) -> Iterator[Place]:
        """Those that wait, and then the next ones of the order, which wait from now on."""
        yield from list(self.waiting)
        while True:
            self.waiting.append(self._place(self.position + len(self.waiting)))
            yield self.waiting[-1]

    def _place(self, position: int) -> Place:
        placed = self.items.place_at(position, self.seed) if isinstance(self.items, Placed) else None
        if placed is not None:
            return placed
        epoch, offset = divmod(position, len(self.items))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self.items), generator=stream(self.seed, "shuffle", epoch))
        return int(self._order[1][offset]), epoch

    def _item(self, index: int, epoch: int) -> Item:
        return self.items.at(index, epoch) if isinstance(self.items, Redrawn) else self.items[index]

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is; the same on every process, plain numbers and lists of them."""
        state: dict[str, Any] = {"position": self.position, "seed": self.seed, "items": len(self.items)}
        return {**state, "waiting": [list(place) for place in self.waiting]} if self.buckets else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; the number of processes and the batch size may have changed.

        With `other_data` the number of items may, too: a new pass over these then begins, as where only one of the two
        orders is of buckets.

        Raises:
            CheckpointError: the state belongs to other data or another seed.
        """
        if self.other_data and state["items"] != len(self.items):
            passes = self._begin_pass(state)
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
        if bool(self.buckets) != ("waiting" in state):  # data.buckets was changed, or its batches were filled up
            self._begin_pass(state)
            log.warning("the checkpoint's data order had other buckets: a new pass over the rows begins.")
            return
        self.position = state["position"]
        self.waiting = [(index, epoch) for index, epoch in state.get("waiting", ())]

    def _begin_pass(self, state: Mapping[str, Any]) -> int:
        """Go to the beginning of the pass after that of `state`; return how many passes are over."""
        passes = -(-int(state["position"]) // int(state.get("pass", state["items"])))
        self.position, self.waiting = passes * len(self.items), []
        return passes
