"""Rows of several sources as one sequence, drawn by shares."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Generic, TypeVar, overload

import torch

from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.row_kinds import HasShapes, KnowsFaults, RowKind, modality_of_rows, prompts_of, units_of

__all__ = ["BLOCK", "MixedRows", "picked", "placed_in"]

BLOCK = 10_000  # positions in which every part has exactly its share
Row = TypeVar("Row")


class _Joined(Sequence[Row], Generic[Row]):
    """Sequences one behind the other; nothing of them is held."""

    def __init__(self, parts: Sequence[Sequence[Row]]) -> None:
        self._parts, self._ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return LazyRows(self.__getitem__, range(len(self))[index])
        part, at = placed_in(self._ends, range(len(self))[index])
        return self._parts[part][at]

    def __iter__(self) -> Iterator[Row]:
        for part in self._parts:
            yield from part


def placed_in(ends: Sequence[int], index: int) -> tuple[int, int]:
    """Return which part `index` of all lies in, and where in it."""
    part = bisect.bisect_right(ends, index)
    return part, index - (ends[part - 1] if part else 0)


@dataclass(frozen=True, eq=False)
class MixedRows(Sequence[Any]):
    """The rows of all parts, one part behind the other; with `shares` they are drawn by these (see `place_at`)."""

    row_kind: RowKind
    parts: Mapping[str, Sequence[Any]]
    shares: Mapping[str, float] | None = None
    _latest: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def _all(self) -> _Joined[Any]:
        return _Joined(list(self.parts.values()))

    @property
    def kind(self) -> str | None:
        """The modality of the outputs, None of prompts."""
        return next((kind for part in self.parts.values() if (kind := modality_of_rows(part))), None)

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> MixedRows: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.keeping(range(len(self))[index]) if isinstance(index, slice) else self._all[index]

    def keeping(self, places: Sequence[int], instead: Mapping[int, Any] | None = None) -> MixedRows:
        """Return the rows at `places` alone, with those of `instead` (by place) in the place of their own."""
        ends, of = list(accumulate(map(len, self.parts.values()))), {name: array("q") for name in self.parts}
        own, changed = list(self.parts), dict[str, dict[int, Any]]()
        for place in places:
            part, at = placed_in(ends, place)
            if instead and place in instead:
                changed.setdefault(own[part], {})[len(of[own[part]])] = instead[place]
            of[own[part]].append(at)
        parts = {name: picked(rows, of[name], changed.get(name, {})) for name, rows in self.parts.items() if of[name]}
        return replace(self, parts=parts)

    def prompts(self) -> Sequence[Prompt]:
        """Return what each row asks; nothing is decoded."""
        return _Joined([prompts_of(part) for part in self.parts.values()])

    def units(self) -> Sequence[Any]:
        """Return what rows are told apart by."""
        return _Joined([units_of(part) for part in self.parts.values()])

    def faults(self) -> list[str]:
        """Return a sentence for each row that cannot be read."""
        return [fault for part in self.parts.values() for fault in _faults(part)]

    def shapes(self) -> Iterator[tuple[str, Any]]:
        """Yield where each picture or sound stands, and what its header says."""
        for part in self.parts.values():
            if isinstance(part, HasShapes):
                yield from part.shapes()

    def place_at(self, position: int, seed: int, sizes: Mapping[str, int] | None = None) -> tuple[int, int] | None:
        """Return which row is drawn at a `position` of the run, and in which pass over the rows of its part.

        None where rows are drawn as those of one source. In every `BLOCK` of positions each part has exactly its
        share, in an order of the seed's; a part's own rows are passed over in full, each pass in a new order, before
        one of them comes again. Both follow from the position alone: a resumed run draws what the other would have
        drawn, on any number of processes.

        Args:
            position: how many rows were drawn before.
            seed: the run's.
            sizes: how many rows each part has where they are not those here (windows of its sounds).
        """
        if self.shares is None:
            return None
        sizes = sizes or {name: len(rows) for name, rows in self.parts.items()}
        block, offset = divmod(position, BLOCK)
        part, rank = self._made(("block", block), lambda: self._slots(seed, block))
        name = list(self.parts)[int(part[offset])]
        drawn = block * self._counts()[name] + int(rank[offset])
        epoch, at = divmod(drawn, sizes[name])
        order = self._made(
            ("order", name, epoch), lambda: torch.randperm(sizes[name], generator=stream(seed, "shuffle", name, epoch))
        )
        before = sum(sizes[other] for other in list(self.parts)[: list(self.parts).index(name)])
        return before + int(order[at]), epoch

    def _made(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """`make()`, which is held until another of the same use is asked for."""
        use, which = key[:-1], key[-1]
        if self._latest.get(use, (None, None))[0] != which:
            self._latest[use] = which, make()
        return self._latest[use][1]

    def _counts(self) -> dict[str, int]:
        """How many of a block's positions each part has."""
        shares = self.shares or {}
        whole = sum(shares[name] for name in self.parts)
        exact = {name: BLOCK * shares[name] / whole for name in self.parts}
        counts = {name: int(value + 1e-9) for name, value in exact.items()}
        by_rest = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
        for name in by_rest[: BLOCK - sum(counts.values())]:
            counts[name] += 1
        return counts

    def _slots(self, seed: int, block: int) -> tuple[Tensor, Tensor]:
        """The part (BLOCK,) of each position of a block, and the how many-eth of its part it is."""
        counts = torch.tensor(list(self._counts().values()))
        part = torch.repeat_interleave(torch.arange(len(counts)), counts)
        part = part[torch.randperm(BLOCK, generator=stream(seed, "shares", block))]
        rank = torch.zeros(BLOCK, dtype=torch.long)
        for number in range(len(counts)):
            mine = part == number
            rank[mine] = torch.arange(int(mine.sum()))
        return part, rank


def picked(rows: Sequence[Any], places: Sequence[int], instead: Mapping[int, Any] | None = None) -> Sequence[Any]:
    """Return the rows at `places`, as lazy as they were; `instead` has some of them, by their place in the result."""
    own: Any = rows
    lazy = hasattr(rows, "only")
    few = own.only(array("q", [own.rows[at] for at in places])) if lazy else LazyRows(rows.__getitem__, places)
    if instead:
        return LazyRows(lambda at: instead[at] if at in instead else few[at], range(len(few)))
    return few


def _faults(rows: Sequence[Any]) -> list[str]:
    if isinstance(rows, KnowsFaults):
        return rows.faults()
    lazy = (prompt.media for prompt in prompts_of(rows))
    return [fault for media in lazy if isinstance(media, KnowsFaults) for fault in media.faults()]
