"""Generators behind one interface: a file per model family, each a dataclass that implements `LatentAdapter`."""

from mmalign.core.registry import Registry

adapters = Registry("adapter", "mmalign.adapters")

__all__ = ["adapters"]
