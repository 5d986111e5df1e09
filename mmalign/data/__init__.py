"""Where prompts and preferences come from: a source is a file of this folder, `data: {name: prompts, path: …}`.

A source is a dataclass that follows `mmalign.core.protocols.DataSource`; one that reads a file of rows extends
`mmalign.data.file_source.FileSource`. `mmalign.data.batches.Batches` turns the rows to train on into an endless,
resumable stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from mmalign.core.capabilities import require_members
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import DataSource
from mmalign.core.registry import Registry


class DataRegistry(Registry):
    """Builds sources; one with a field `make` is given the way to build sources of its own."""

    def build(self, spec: Any, at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the source that `spec` (`name` and its options) describes; `at` is its place in the run file.

        Raises:
            ConfigError: every fault of its options at once.
            CapabilityError: a part that is no data source.
        """
        self.require_spec(spec, at)
        try:
            options = {f.name for f in dataclasses.fields(self.get(spec["name"], allow))}
        except ConfigError:
            return super().build(spec, at, allow, **given)  # which says why

        def make(part: Any, place: str) -> Any:
            made = self.build(part, f"{at}.{place}", allow, **given)
            require_members(made, (DataSource,), f"{at}.{place} '{part['name']}'")
            return made

        own = {name: value for name, value in {**given, "make": make}.items() if name in options}
        return super().build(spec, at, allow, **own)


data_sources = DataRegistry("data", "mmalign.data", "data", families=["sources"])

__all__ = ["DataRegistry", "data_sources"]
