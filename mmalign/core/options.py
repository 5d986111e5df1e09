"""Ranges of numeric options, written once beside the option and checked wherever options come from.

    rows: Count = 0
    lr: Positive = 1e-4
    clip_high: Positive | None = None

Numbers are finite (NaN and infinity are refused) unless a type says otherwise. `construct` reads these types, so that
all options that are out of range are told at once.
"""

from __future__ import annotations

from typing import Annotated

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
