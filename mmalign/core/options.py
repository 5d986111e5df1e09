"""Ranges of numeric options, written once beside the option and checked wherever options come from.

    rows: Count = 0
    lr: Positive = 1e-4
    clip_high: Positive | None = None

Numbers are finite (NaN and infinity are refused) unless a type says otherwise. `construct` reads these types, so that
all options that are out of range are told at once; a component that is also made by hand calls `check_ranges(self)`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan

Count = Annotated[int, Ge(0)]  # 0 often means "all" or "never"
AtLeastOne = Annotated[int, Ge(1)]
AtLeastTwo = Annotated[int, Ge(2)]
JpegQuality = Annotated[int, Ge(1), Le(100)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
NotNegativeOrInfinite = Annotated[float, Ge(0), AllowInfNan(True)]
PositiveOrInfinite = Annotated[float, Gt(0), AllowInfNan(True)]


def check_ranges(options: Any) -> None:
    """Raise ValueError with every numeric option of a dataclass that is outside what its type says."""
    if faults := list(out_of_range(options)):
        raise ValueError("; ".join(faults))


def out_of_range(options: Any) -> Iterator[str]:
    """A sentence for every numeric option of a dataclass that is outside what its type says."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name, None)
        if not dataclasses.is_dataclass(options) or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        limits = list(_limits(hint))
        if (
            isinstance(value, float)
            and not math.isfinite(value)
            and not any(isinstance(x, AllowInfNan) for x in limits)
        ):
            yield f"{name}: must be a finite number (got {value})"
        elif broken := [text for limit in limits if (text := _beyond(value, limit))]:
            yield f"{name}: must be {' and '.join(broken)} (got {value})"


def _limits(hint: Any) -> Iterator[Any]:
    """What a hint, or a member of its union, is annotated with."""
    yield from getattr(hint, "__metadata__", ())
    for member in typing.get_args(hint):
        yield from _limits(member)


def _beyond(value: float, limit: Any) -> str:
    """What `value` had to be, "" if it is within `limit`; NaN is within none."""
    if isinstance(limit, Ge):
        return "" if value >= limit.ge else f"at least {limit.ge:g}"  # type: ignore[operator, str-format]
    if isinstance(limit, Gt):
        return "" if value > limit.gt else f"above {limit.gt:g}"  # type: ignore[operator, str-format]
    if isinstance(limit, Le):
        return "" if value <= limit.le else f"at most {limit.le:g}"  # type: ignore[operator, str-format]
    if isinstance(limit, Lt):
        return "" if value < limit.lt else f"below {limit.lt:g}"  # type: ignore[operator, str-format]
    return ""
