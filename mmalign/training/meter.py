"""Running means of the numbers of one step, kept on their device until the step ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from mmalign.core.metrics import Average
from mmalign.core.tensor import Tensor

Sums = Mapping[str, tuple[float, float]]  # total and count by name


class Meter:
    """Weighted means by name; reading them is the only device synchronisation of a step's metrics.

    Sums and counts are added up, and divided once at the end: the parts that a step was split into (`micro_batch_size`,
    `steps_per_pass`), and the processes that share it, do not change the average of the whole.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: Mapping[str, Average | Tensor | float], share: float = 1.0) -> None:
        """Add averages by their sums and counts, and plain numbers as the mean of `share` entries (rows, say)."""
        for name, value in values.items():
            if isinstance(value, Average):
                total, count = value.total.double(), value.count.double()
            else:
                total = torch.as_tensor(value).detach().double() * share
                count = torch.full_like(total, share)
            known = self._sums.get(name)
            self._sums[name] = (total, count) if known is None else (known[0] + total, known[1] + count)

    def take_sums(self) -> dict[str, tuple[float, float]]:
        """Total and count by name, then forget them."""
        sums = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return sums

    def take(self) -> dict[str, float]:
        """The means so far, then forget them."""
        return merged([self.take_sums()])


def merged(parts: Iterable[Sums]) -> dict[str, float]:
    """The means over several processes' entries, each entry counting alike; what none has any of is left out."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            known = totals.get(name, (0.0, 0.0))
            totals[name] = (known[0] + total, known[1] + count)
    return {name: total / count for name, (total, count) in totals.items() if count}
