"""Running means of the numbers of one step, kept on their device until the step ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from mmalign.core.tensor import Tensor

Sums = Mapping[str, tuple[float, float]]  # total and count by name


class Meter:
    """Weighted means by name; reading them is the only device synchronisation of a step's metrics.

    A mean over entries that count (`Counted`) enters with as many entries as it is of, so the parts that a step was
    split into, and the processes that share it, do not change what is told of the whole.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: Mapping[str, Tensor | float], share: float = 1.0) -> None:
        """Add values; those that do not say of how many entries they are count `share` (rows, say)."""
        from mmalign.core.counted import Counted

        for name, value in values.items():
            if isinstance(value, Counted):
                count = value.entries.double()
                total = value.double() * count
            else:
                total = torch.as_tensor(value).detach().double() * share
                count = torch.full_like(total, share)
            held = self._sums.get(name)
            self._sums[name] = (total, count) if held is None else (held[0] + total, held[1] + count)

    def take_sums(self) -> dict[str, tuple[float, float]]:
        """Total and count by name, then forget them."""
        found = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return found

    def take(self) -> dict[str, float]:
        """The means so far, then forget them."""
        return merged([self.take_sums()])


def merged(parts: Iterable[Sums]) -> dict[str, float]:
    """The means over several processes' entries, each entry counting alike; what none has any of is left out."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            held = totals.get(name, (0.0, 0.0))
            totals[name] = (held[0] + total, held[1] + count)
    return {name: total / count for name, (total, count) in totals.items() if count}
