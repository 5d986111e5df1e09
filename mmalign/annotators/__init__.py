"""Rows that say more than which output is better: annotators read rows and write columns, or further rows.

`annotators.get("strength")` is the class of a name; `mmalign annotate ROWS --with NAME` runs them over a file
(`mmalign/annotators/_file.py`). One is a callable of N `Row`s that returns, for each, the rows that come of it or a
`Skipped` with the reason. `dpo` and `bradley_terry` read what they write: `label`, `margin`, `gap`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmalign.core.registry import Registry

if TYPE_CHECKING:
    from mmalign.annotators._rows import Annotator as Annotator
    from mmalign.annotators._rows import Row as Row
    from mmalign.annotators._rows import Skipped as Skipped

annotators = Registry("annotator", "mmalign.annotators")

__all__ = ["Annotator", "Row", "Skipped", "annotators"]


def __getattr__(name: str) -> Any:
    if name not in ("Annotator", "Row", "Skipped"):
        raise AttributeError(f"module 'mmalign.annotators' has no attribute '{name}'.")
    return getattr(importlib.import_module("mmalign.annotators._rows"), name)
