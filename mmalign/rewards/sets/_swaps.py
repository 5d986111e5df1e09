"""Every set that differs from one in a single row, as row numbers."""

from __future__ import annotations

import torch
from jaxtyping import Int

from mmalign.core.tensor import Tensor


def swapped_sets(rows: int, start: int, device: torch.device | str = "cpu") -> Int[Tensor, "S n"]:
    """For rows 0 … n-1 and their rivals n … 2n-1: the set with place i given to its rival, for each i from `start`."""
    places = torch.arange(start, rows, device=device)
    sets = torch.arange(rows, device=device).repeat(len(places), 1)
    sets[torch.arange(len(places), device=device), places] = places + rows
    return sets
