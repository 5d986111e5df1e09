"""Captions that are almost right: one change away from a request, then more."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from mmalign.miniworld.drawing import Written

R = TypeVar("R", bound=Written)


def near_misses(
    request: R,
    n: int,
    rng: np.random.Generator,
    edits: Callable[[R], Iterable[R]],
    wanted: Callable[[R], Any],
) -> list[R]:
    """Distinct requests as few changes away as possible.

    Single changes come first in random order; when they run out, those of eight of them follow, and so on.

    Args:
        request: where to start; not among them.
        n: how many; fewer where there are no more.
        rng: source of chance.
        edits: all requests one change away.
        wanted: whether to take one; those that are not are still changed further.
    """
    frontier, seen, misses = [request], {request.text}, list[R]()
    while len(misses) < n and frontier:
        fresh = {edit.text: edit for source in frontier for edit in edits(source)}
        level = [edit for text, edit in fresh.items() if text not in seen]
        seen.update(fresh)
        rng.shuffle(level)
        for edit in level:
            if len(misses) < n and wanted(edit):
                misses.append(edit)
        frontier = level[:8]
    return misses
