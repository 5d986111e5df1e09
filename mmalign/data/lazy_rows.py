"""Rows that are made when they are indexed: a slice of them is as lazy, and a million take no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

Made = TypeVar("Made")


class LazyRows(Sequence[Made], Generic[Made]):
    """`make(at)` for each of `places`; nothing of it is held."""

    def __init__(self, make: Callable[[int], Made], places: Sequence[int]) -> None:
        self.make, self.places = make, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> LazyRows[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | LazyRows[Made]:
        if isinstance(index, slice):
            return LazyRows(self.make, self.places[index])
        return self.make(self.places[index])


__all__ = ["LazyRows"]
