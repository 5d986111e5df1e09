"""Where the key points of a prompt come from: one dataclass per file.

Its members are those of `PointSource` (`mmalign.core.protocols`). It reads the prompt and never an output: what
is asked is fixed per prompt, else a rewriter could delete what is hard.
"""

from collections.abc import Collection
from typing import Any

from mmalign.core.capabilities import require_members
from mmalign.core.protocols import PointSource
from mmalign.core.registry import Registry
from mmalign.rewards.points._key_points import GROUPS, POINTS, KeyPoint

point_sources = Registry("point_source", "mmalign.rewards.points")

__all__ = ["GROUPS", "POINTS", "KeyPoint", "make_source", "point_sources"]


def make_source(spec: str | dict[str, Any], allow: Collection[str] = ()) -> PointSource:
    """The source of a spec, {name: …, options…}; a plain string is a name.

    Raises:
        ConfigError: a wrong spec.
        CapabilityError: a class that lacks a member of `PointSource`.
    """
    named = {"name": spec} if isinstance(spec, str) else spec
    source: PointSource = point_sources.build(named, "points", allow)
    require_members(source, [PointSource], f"points '{named['name']}'")
    return source
