"""What transformers calls the keys and values of what was read: `cache` from 5.24 on, `past_key_values` before."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

OLD, NEW = "past_key_values", "cache"


def call_with_past(network: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """The output of `network(**inputs)` and its keys and values; `inputs` may hold some as `past_key_values`."""
    name = _name_of(type(network).forward)
    out = network(**{name if key == OLD else key: value for key, value in inputs.items()})
    return out, out[NEW] if NEW in out else out.get(OLD)


@lru_cache(maxsize=64)
def _name_of(forward: Callable[..., Any]) -> str:
    return NEW if NEW in inspect.signature(forward).parameters else OLD
