"""Rows that say more than which output is better: annotators read rows and write columns, or further rows.

`annotators.get("strength")` is the class of a name; `mmalign annotate ROWS --with NAME` runs them over a file
(`mmalign/annotators/_file.py`). One is a callable of N `Row`s that returns, for each, the rows that come of it or a
`Skipped` with the reason. `dpo` and `bradley_terry` read what they write: `label`, `margin`, `gap`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mmalign.core.errors import ConfigError
from mmalign.core.registry import Registry, making

if TYPE_CHECKING:
    from mmalign.annotators._rows import Annotator as Annotator
    from mmalign.annotators._rows import Row as Row
    from mmalign.annotators._rows import Skipped as Skipped


class AnnotatorRegistry(Registry):
    """Builds annotators; one with a field `make` is given the way to build parts of its own (rewards, a generator)."""

    def build(self, spec: Any, at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the annotator that `spec` (`name` and its options) describes; `at` is its place in messages."""
        self.require_spec(spec, at)
        try:
            kind = self.get(spec["name"], allow)
        except ConfigError:
            return super().build(spec, at, allow, **given)  # which says why
        return super().build(spec, at, allow, **given, **making(kind, at, allow))


annotators = AnnotatorRegistry("annotator", "mmalign.annotators")

__all__ = ["Annotator", "Row", "Skipped", "annotators"]


def __getattr__(name: str) -> Any:
    if name not in ("Annotator", "Row", "Skipped"):
        raise AttributeError(f"module 'mmalign.annotators' has no attribute '{name}'.")
    return getattr(importlib.import_module("mmalign.annotators._rows"), name)
