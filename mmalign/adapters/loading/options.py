"""Option types that adapters share, and what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, Literal, NoReturn, get_args, get_type_hints

import torch

from mmalign.core.device import fastest
from mmalign.core.errors import CapabilityError, ConfigError, MmalignError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.types import Prompt

Train = Literal["lora", "full", "frozen"]  # frozen: judges and generators inside rewards
Dtype = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class NotLoaded(MmalignError, AttributeError):
    """A part of an adapter was used before `load()`; an AttributeError, so `hasattr` answers False until then."""


def not_loaded(adapter: Any, name: str) -> NoReturn:
    """Body of an adapter's `__getattr__`: say that `load()` comes first, or that there is no such attribute."""
    kind = type(adapter)
    if any(name in vars(each).get("__annotations__", {}) for each in kind.__mro__):
        raise NotLoaded(f"{kind.__name__}.{name} is not there yet: call load() first (model: {adapter.model}).")
    raise AttributeError(f"'{kind.__name__}' has no attribute '{name}'")


def torch_dtype(name: Dtype) -> torch.dtype:
    """The torch dtype an option names."""
    dtype: torch.dtype = getattr(torch, _DTYPES[name])
    return dtype


def default_device(named: torch.device | str | None) -> torch.device:
    """`named`, or the fastest there is."""
    return fastest() if named is None else torch.device(named)


def mixed_precision(device: torch.device, dtype: Dtype) -> AbstractContextManager[None]:
    """Autocast to `dtype`, or off for fp32: what surrounds the adapter never changes what it computes."""
    return torch.autocast(device.type, dtype=torch_dtype(dtype), enabled=dtype != "fp32")


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No autocast, whatever surrounds it."""
    return torch.autocast(device.type, enabled=False)


def input_dtype(train: Train, dtype: Dtype) -> torch.dtype:
    """What the trained network's frozen weights, and hence its inputs, are kept in: float32 where all of it trains."""
    return torch.float32 if train == "full" else torch_dtype(dtype)


def image_size(
    resolution: int | None, height: int | None, width: int | None, native: tuple[int, int], multiple: int
) -> tuple[int, int]:
    """(height, width) in pixels: each as given, else `resolution`, else `native`, what the model was trained at.

    Raises ConfigError where a side is not a positive multiple of `multiple` pixels.
    """
    sides = {"height": height or resolution or native[0], "width": width or resolution or native[1]}
    faults = [
        f"{name}: {side} is not a positive multiple of {multiple}, which this model needs; "
        f"the nearest is {max(1, round(side / multiple)) * multiple}."
        for name, side in sides.items()
        if side <= 0 or side % multiple
    ]
    if faults:
        raise ConfigError(faults)
    return sides["height"], sides["width"]


def check_positive(component: Any) -> None:
    """Raise ConfigError naming every option of a dataclass that is typed as positive and is not.

    Run files are checked before; this is for what is made in Python.
    """
    faults = [
        f"{name}: {value:g} is not a positive number."
        for name in _positive(type(component))
        if (value := getattr(component, name)) is not None and not value > 0
    ]
    if faults:
        raise ConfigError(faults)


def _positive(kind: type[Any]) -> tuple[str, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(f.name for f in fields(kind) if {AtLeastOne, Positive} & {hints[f.name], *get_args(hints[f.name])})


def texts_only(prompts: Sequence[Prompt], family: str) -> list[str]:
    """The texts of prompts, or a CapabilityError where one carries media that `family` would have to ignore."""
    for row, prompt in enumerate(prompts):
        if prompt.media:
            raise CapabilityError(
                f"row {row}: the prompt carries media ({', '.join(prompt.media)}) and '{family}' reads text only."
            )
    return [prompt.text for prompt in prompts]
