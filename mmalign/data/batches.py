"""An endless stream of batches that is the same for any number of processes and continues where it stopped.

All processes walk one global order: epoch after epoch, each a fresh permutation from a stream named by its number.
Batch k is the next `size` items of it; process r of w takes the r-th of w equal parts. Hence: every process gets the
same number of items, each item (so each group of samples drawn for it) lives on one process, and no item is left out:
a batch at the end of an epoch is filled from the next one. An item that this repeats in a batch is two entries there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch

from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor

Item = TypeVar("Item")

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

    @property
    def epoch(self) -> float:
        """Passes over the items so far."""
        return self.position / len(self.items)

    def __iter__(self) -> Iterator[list[Item]]:
        return self

    def __next__(self) -> list[Item]:
        share = self.size // self.world
        start = self.position + self.rank * share
        batch = [self.items[self._index(i)] for i in range(start, start + share)]
        self.position += self.size
        return batch

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.items))
        if self._order is None or self._order[0] != epoch:
            rng = stream(self.seed, "shuffle", epoch)
            self._order = epoch, torch.randperm(len(self.items), generator=rng)
        return int(self._order[1][offset])

    def state_dict(self) -> dict[str, int]:
        """Return where the stream is; the same on every process, plain numbers."""
        return {"position": self.position, "seed": self.seed, "items": len(self.items)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state`; the number of processes and the batch size may have changed.

        With `other_data` the number of items may, too: a new pass over these then begins.

        Raises:
            CheckpointError: the state belongs to other data or another seed.
        """
        if self.other_data and state["items"] != len(self.items):
            passes = -(-state["position"] // state["items"])
            self.position = passes * len(self.items)
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
        self.position = state["position"]
