"""Rows that say more than which output is better: annotators read rows and write columns, or further rows.

`annotators.get("strength")` is the class of a name; `mmalign annotate ROWS --with NAME` runs them over a file
(`mmalign/annotators/_file.py`). `dpo` and `bradley_terry` read what they write: `label`, `margin`, `gap`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.registry import Registry, making


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

__all__ = ["annotators"]
