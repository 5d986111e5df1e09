"""The type of a field for an adapter that may not be loaded yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

A = TypeVar("A")

if TYPE_CHECKING:
    Unloaded = Annotated[A, "unloaded"]
else:

    class Unloaded:
        """`Unloaded[LatentAdapter]` annotates the field of an adapter that may not be loaded yet.

        Type checkers take it for a `LatentAdapter`; at run time it is Any, for before `load` many members are missing.
        """

        def __class_getitem__(cls, protocol: object) -> Any:
            return Any


__all__ = ["Unloaded"]
