"""Faults collected while a component is tried, and told together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmalign.core.capabilities import data_members, members


class Faults:
    """What is wrong with `name`, one sentence each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sentences: list[str] = []

    def require(self, holds: object, sentence: str) -> bool:
        """Add `sentence` unless `holds`, a truth value of any kind; returns whether it did."""
        if not bool(holds):
            self.sentences.append(sentence)
        return bool(holds)

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Inside it an exception is a fault of `what`, and the checks after it go on."""
        try:
            yield
        except Exception as error:  # the component under test may raise anything
            self.sentences.append(f"{what} raised {type(error).__name__}: {error}")

    def report(self) -> None:
        """Raise all of them.

        Raises:
            AssertionError: with one line for each fault, if there is any.
        """
        if self.sentences:
            raise AssertionError("\n".join(f"{self.name}: {sentence}" for sentence in self.sentences))


def has_members(faults: Faults, component: object, protocol: type) -> bool:
    """Whether `component` has every method and attribute of `protocol`; a fault names what it lacks."""
    missing = sorted(name for name in data_members(protocol).union(members(protocol)) if not hasattr(component, name))
    calls = "__call__" not in vars(protocol) or callable(component)
    return faults.require(
        calls and not missing, f"lacks {', '.join([*missing, *([] if calls else ['__call__'])])} of {protocol.__name__}"
    )


@contextmanager
def random_state_kept(faults: Faults) -> Iterator[None]:
    """Inside it, drawing from the global random numbers of torch or NumPy is a fault."""
    before, numbers = torch.get_rng_state(), _state_of_numpy()
    yield
    same = torch.equal(before, torch.get_rng_state()) and numbers == _state_of_numpy()
    faults.require(same, "draws from the global random numbers")


def _state_of_numpy() -> tuple[bytes, int, int, float]:
    """The words of the global generator, the place in them, and the normal number that it holds back."""
    import numpy

    state = numpy.random.get_state(legacy=False)  # noqa: NPY002
    words = state["state"]
    return words["key"].tobytes(), words["pos"], state["has_gauss"], state["gauss"]
