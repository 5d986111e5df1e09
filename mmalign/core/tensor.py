"""PyTorch's types and `no_grad`, for annotations, options, `isinstance` and decorators, without importing it.

The import takes two seconds. What run files name can so be found, checked and shown before anything is computed. A
module that is imported for that takes these from here and writes `import torch` for what computes: the command line
puts that off until it does (`mmalign/cli/_later.py`), where nothing at the module's own level, no base class and no
decorator, asks for more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from torch import Generator as Generator
    from torch import Tensor as Tensor
    from torch import device as Device
    from torch.nn import Module as Module
else:

    class _OfTorch(type):
        """Its instances are those of a class of torch; there are none before torch is loaded."""

        def __instancecheck__(cls, value: object) -> bool:
            loaded = "torch.nn" in sys.modules  # `torch` alone may stand there before it is
            return loaded and isinstance(value, getattr(sys.modules[cls.where[0]], cls.where[1]))

    class Tensor(metaclass=_OfTorch):
        """`torch.Tensor`."""

        where = "torch", "Tensor"

    class Device(metaclass=_OfTorch):
        """`torch.device`."""

        where = "torch", "device"

    class Generator(metaclass=_OfTorch):
        """`torch.Generator`."""

        where = "torch", "Generator"

    class Module(metaclass=_OfTorch):
        """`torch.nn.Module`."""

        where = "torch.nn", "Module"


def without_gradient(function: Callable[P, T]) -> Callable[P, T]:
    """`torch.no_grad()` around every call; PyTorch's own decorator is made of it, and so imports it."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        import torch

        with torch.no_grad():
            return function(*args, **options)

    return call
