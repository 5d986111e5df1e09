"""The weights of a network that train, and their reference: what they were at the start.

To compute with the start's weights is to change what all threads share, for as long as it lasts. So forwards of other
threads wait meanwhile, and it waits for forwards that have begun: nobody computes with a mixture.

The copy of the start rests on the CPU until it is first needed, then stays on the network's device. Entering swaps
storage pointers, parameter by parameter: no weight is copied per call, and optimizer state and hooks keep their
parameters.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from mmalign.core.errors import CapabilityError
from mmalign.loading.foreign import PretrainedModel


class ReadWriteLock:
    """A lock that forwards share and `exclusive` has alone; within its own thread `exclusive` may be nested."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._forwards: Counter[int] = Counter()  # under way, by thread
        self._owner: int | None = None
        self._depth = 0

    def watch(self, module: torch.nn.Module) -> None:
        """Make every forward of `module` take the lock."""
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end(), always_call=True)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Hold the lock around a computation with the weights that is no forward of a watched module."""
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

    def __deepcopy__(self, memo: dict[int, Any]) -> ReadWriteLock:
        """A copy of a network is nobody's yet."""
        return ReadWriteLock()


@runtime_checkable
class TrainedWeights(Protocol):
    """The trained part of a network: what an optimizer, a reference and a checkpoint need of it.

    `lock` keeps the threads that compute with it apart from one that stands at the start.
    """

    lock: ReadWriteLock

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters by name, float32."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the network computes with the weights it started from."""
        ...

    def save(self, directory: Path) -> None:
        """Write what plain diffusers loads."""
        ...

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote, or raise CheckpointError."""
        ...


class Start:
    """A frozen copy of `parameters` as they are now."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._live = dict(parameters)
        self._frozen = {name: (p if p.is_meta else p.cpu()).detach().clone() for name, p in self._live.items()}
        self.lock = ReadWriteLock()

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside it the parameters hold their starting values; may be nested. Other threads wait, see `ReadWriteLock`.

        Run it to its end before `backward` of a graph built outside it: the graph reads the live weights.
        """
        with self.lock.exclusive() as outermost:
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

    def __init__(self, network: PretrainedModel) -> None:
        self._network = network
        self._start = Start(self.trainable())
        self.lock = self._start.lock

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return every parameter that trains, by its name in the network, float32."""
        return trained_parameters(self._network)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it the network computes with the weights it started from; see `Start`."""
        return self._start.swapped_in()


def trained_parameters(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of `network` that get a gradient, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


class FrozenWeights:
    """The weights as they came; there is nothing to train, to save or to restore."""

    def __init__(self) -> None:
        self.lock = ReadWriteLock()

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return {}: nothing trains."""
        return {}

    def reference(self) -> AbstractContextManager[None]:
        """Change nothing: the network is its own reference."""
        return nullcontext()

    def save(self, directory: Path) -> None:
        """Raises CapabilityError: there is nothing that its checkpoint does not hold."""
        raise CapabilityError("train: frozen trains nothing, so there is nothing to save; set train: lora or full.")

    restore = save
