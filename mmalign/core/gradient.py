"""Functions that need no gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def without_gradient(function: Callable[P, T]) -> Callable[P, T]:
    """`torch.no_grad()` around every call; PyTorch's own decorator is made of it, and so imports it (`tensor.py`)."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        with torch.no_grad():
            return function(*args, **options)

    return call
