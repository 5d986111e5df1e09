"""What set rewards embed rows with: one dataclass per file.

An encoder has `modalities`, `differentiable`, `embed(rollout) -> (B, D)`, `fingerprint() -> str`, and, for references,
`images(list of (3, H, W)) -> (N, D)` or `texts(list of str) -> (N, D)` where it can. Encoders of sound also give
`frames(rollout) -> B times (F, D)`, F differing from row to row, and 0 for a row without a finite sound.
"""

from collections.abc import Collection
from typing import Any

from mmalign.core.registry import Registry

encoders = Registry("encoder", "mmalign.rewards.encoders")

__all__ = ["encoders", "make_encoder"]


def make_encoder(spec: str | dict[str, Any], allow: Collection[str] = ()) -> Any:
    """The encoder of a spec, {name: …, options…}; a plain string is the checkpoint of a `clip` encoder."""
    return encoders.build({"name": "clip", "checkpoint": spec} if isinstance(spec, str) else spec, "encoder", allow)
