"""Adapters around one network of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from mmalign.adapters.loading.adapter import PretrainedAdapter
from mmalign.core.tensor import Module


@dataclass
class TransformersAdapter(PretrainedAdapter):
    """An adapter whose network runs without dropout.

    Args:
        attention: transformers' attention implementation; None for its own choice.
    """

    attention: str | None = None

    network: Any = field(init=False, repr=False, compare=False)  # `module` before a launcher wraps it


def accepted(forward: Callable[..., Any]) -> frozenset[str]:
    """The arguments a forward names."""
    return frozenset(signature(forward).parameters)


@contextmanager
def checkpointed(network: Module) -> Iterator[None]:
    """Layers recompute what they made in here, if gradient checkpointing was switched on.

    transformers does so only in training mode, which would also turn dropout on; the mode is not passed down here.
    """
    layers = [m for m in network.modules() if getattr(m, "gradient_checkpointing", False)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
