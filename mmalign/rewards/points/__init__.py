"""Where the key points of a prompt come from: one dataclass per file.

A source has `needs`, the columns it reads, and `__call__(prompt)`, which gives a list of `KeyPoint`, None where the
prompt has none, or raises ValueError. It reads the prompt and never an output: what is asked is fixed per prompt, else
a rewriter could delete what is hard.
"""

from collections.abc import Collection
from typing import Any

from mmalign.core.registry import Registry
from mmalign.rewards.points._key_points import GROUPS, POINTS, KeyPoint

point_sources = Registry("point_source", "mmalign.rewards.points")

__all__ = ["GROUPS", "POINTS", "KeyPoint", "make_source", "point_sources"]


def make_source(spec: str | dict[str, Any], allow: Collection[str] = ()) -> Any:
    """The source of a spec, {name: …, options…}; a plain string is a name."""
    return point_sources.build({"name": spec} if isinstance(spec, str) else spec, "points", allow)
