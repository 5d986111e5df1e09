"""What to collect, how much each entry weighs, and the loss: `objectives.get("grpo")`; papers in `PAPERS.md`."""

from collections.abc import Collection
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.registry import Registry, making


class ObjectiveRegistry(Registry):
    """Builds objectives; one with a field `make` is given the way to build parts of its own (frozen readers)."""

    def build(self, spec: Any, at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the objective that `spec` (`name` and its options) describes; `at` is its place in the run file."""
        self.require_spec(spec, at)
        try:
            kind = self.get(spec["name"], allow)
        except ConfigError:
            return super().build(spec, at, allow, **given)  # which says why
        return super().build(spec, at, allow, **given, **making(kind, at, allow))


objectives = ObjectiveRegistry("objective", "mmalign.objectives")

__all__ = ["objectives"]
