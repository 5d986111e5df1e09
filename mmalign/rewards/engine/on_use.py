"""What rewards and encoders over one frozen model share; they take it into their bodies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class LoadedOnUse(Generic[T]):
    """An attribute: the model that `_source` names, loaded on first use and shared with others that name it."""

    def __init__(self, load: Callable[[Any], T]) -> None:
        self._load = load

    @overload
    def __get__(self, owner: None, kind: type) -> LoadedOnUse[T]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        """The model; the attribute itself where a class is asked."""
        return self if owner is None else self._load(owner._source)


def fingerprint(self: Any) -> str:
    """Of weights and preprocessing."""
    return self.towers.fingerprint  # type: ignore[no-any-return]
