"""Rows that are made when they are indexed: a million take no memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

Made = TypeVar("Made")


class IndexedRows(Sequence[Made], ABC, Generic[Made]):
    """`made(index)` is one row, a slice a list of them."""

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> list[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | list[Made]:
        return [self.made(i) for i in range(len(self))[index]] if isinstance(index, slice) else self.made(index)

    @abstractmethod
    def made(self, index: int) -> Made:
        """Make row `index`; IndexError beyond the last."""


class LazyRows(Sequence[Made], Generic[Made]):
    """`make(at)` for each of `places`; a slice is as lazy, and nothing is held."""

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


class MappedRows(IndexedRows[Mapping[str, Any]]):
    """`change(row)` of each of `rows`."""

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> None:
        self._rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return map(self._change, self._rows)

    def made(self, index: int) -> Mapping[str, Any]:
        """Change row `index`."""
        return self._change(self._rows[index])


__all__ = ["IndexedRows", "LazyRows", "MappedRows"]
