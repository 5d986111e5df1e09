"""Requests drawn by a seed: the same ones whenever they are asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np


@runtime_checkable
class Written(Protocol):
    """Something that is told from others by its text."""

    @property
    def text(self) -> str:
        """The caption that tells it from others."""
        ...


R = TypeVar("R", bound=Written)


@dataclass(frozen=True)
class Drawing(Generic[R]):
    """How the requests of a world's splits are drawn.

    Args:
        sample: draws one request of a split.
        salt: a number of its own for every split, so that equal seeds draw differently.
    """

    sample: Callable[[np.random.Generator, str], R]
    salt: Mapping[str, int]

    def requests(self, split: str, n: int, seed: int = 0) -> list[R]:
        """``n`` requests, repeats possible."""
        rng = self._rng(split, seed)
        return [self.sample(rng, split) for _ in range(n)]

    def distinct(self, split: str, n: int, seed: int = 0) -> list[R]:
        """``n`` requests with different texts, in the order in which they were first drawn."""
        rng = self._rng(split, seed)
        chosen: dict[str, R] = {}
        while len(chosen) < n:
            request = self.sample(rng, split)
            chosen.setdefault(request.text, request)
        return list(chosen.values())

    def _rng(self, split: str, seed: int) -> np.random.Generator:
        return np.random.default_rng([self.salt[split], seed])
