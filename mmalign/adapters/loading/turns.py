"""Whose turn it is with the weights of one network: many forwards at once, or one thread with those of the start.

To compute with the start's weights is to change what all threads share, for as long as it lasts. So forwards of other
threads wait meanwhile, and it waits for forwards that have begun: nobody computes with a mixture.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Turns:
    """A lock that forwards share and `exclusive` has alone; within its own thread `exclusive` may be nested."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._forwards: Counter[int] = Counter()  # under way, by thread
        self._owner: int | None = None
        self._depth = 0

    def watch(self, module: torch.nn.Module) -> None:
        """Make every forward of `module` take its turn."""
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end(), always_call=True)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around a computation with the weights that is no forward of a watched module."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Inside it no other thread computes with the weights; says whether it is the outermost one."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._owner in (None, me) and not set(self._forwards) - {me})
            self._owner, self._depth = me, self._depth + 1
            outermost = self._depth == 1
        try:
            yield outermost
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                    self._changed.notify_all()

    def _begin(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._owner in (None, me))
            self._forwards[me] += 1

    def _end(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._forwards[me] -= 1
            if self._forwards[me] <= 0:
                del self._forwards[me]
                self._changed.notify_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> Turns:
        """A copy of a network is nobody's yet."""
        return Turns()
