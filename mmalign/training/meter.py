"""Running means of the numbers of one step, kept on their device until the step ends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Weighted means by name; reading them is the only device synchronisation of a step's metrics."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._shares: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor | float], share: float = 1.0) -> None:
        """Add values that describe `share` of the step."""
        for name, value in values.items():
            value = torch.as_tensor(value).detach().float() * share
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._shares[name] = self._shares.get(name, 0.0) + share

    def take(self) -> dict[str, float]:
        """The means so far, then forget them."""
        means = {name: float(total) / self._shares[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._shares.clear()
        return means
