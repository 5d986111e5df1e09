"""Weights that train, of which those at the start are kept aside and swapped in while the reference computes.

The copy rests on the CPU until it is first needed, then stays on the network's device. Entering swaps storage
pointers, parameter by parameter: no weight is copied per call, and optimizer state and hooks keep their parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from mmalign.adapters.loading.turns import Turns


class Start:
    """A frozen copy of `parameters` as they are now."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._live = dict(parameters)
        self._frozen = {name: p.detach().cpu().clone() for name, p in self._live.items()}
        self.turns = Turns()

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside it the parameters hold their starting values; may be nested. Other threads wait, see `Turns`.

        Run it to its end before `backward` of a graph built outside it: the graph reads the live weights.
        """
        with self.turns.exclusive() as outermost:
            if outermost:
                self._swap()
            try:
                yield
            finally:
                if outermost:
                    self._swap()

    def _swap(self) -> None:
        for name, parameter in self._live.items():
            frozen = self._frozen[name].to(parameter.device)
            self._frozen[name], parameter.data = parameter.data, frozen
        # Autocast keeps low-precision copies by parameter, not by storage: they are stale now.
        torch.clear_autocast_cache()


class StartedWeights:
    """The parameters of `network` that train now; its reference is what they are now."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._start = Start(self.trainable())
        self.turns = self._start.turns

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Every parameter that trains, by its name in the network, float32."""
        return trained_parameters(self._network)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it the network computes with the weights it started from; see `Start`."""
        return self._start.swapped_in()


def trained_parameters(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters of `network` that get a gradient, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
