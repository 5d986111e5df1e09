"""Generators behind one interface: a file per model family, each a dataclass that implements `LatentAdapter`.

An adapter is made without touching weights; `load()` reads them. Files that start with `_` are what families share.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmalign.core.registry import Registry

adapters = Registry("adapter", "mmalign.adapters", families=["image", "sound", "language", "features"])

__all__ = ["adapters", "load_adapter"]


def load_adapter(name: str, allow: Collection[str] = (), **options: object) -> Any:
    """The adapter called `name`, built with `options` and its weights loaded; "module:Class" only if in `allow`.

        load_adapter("sd3", model="assets/scenes_sd3", train="full")

    Raises:
        ConfigError: an unknown name or option, or a value of the wrong kind; all of them at once.
        CheckpointError: weights that are missing, damaged or of another family.
    """
    return adapters.build({"name": name, **options}, at=name, allow=allow).load()
