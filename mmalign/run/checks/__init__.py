"""Everything that can be known of a run before anything is loaded: a file of this folder is a stage of checks.

A check is a function that takes parts of the run by their names and yields a sentence (or an error) for every fault:

    @check
    def modalities(policy: AnyPolicy, rewards: Mapping[str, Any]) -> Faults:
        yield CapabilityError("rewards.x: judges text, but the policy makes image.")

It may raise as well: what is an `MmalignError` counts as its fault. A part that other parts lead to (the rows of the
data) is a function under `@part`, made at most once. Where a part is not there because of an earlier fault, the check
is left out, and the message says once what could not be judged. Adding a check is adding a function to a file here.

Parts that are always named: `file` (the `RunFile`) and `classes` (those that names resolve to, by section). Those that
are there once they could be made: `adapter`, `policy`, `reward` (None where the file names none), `objective`,
`source`, `rewards` and `judges` (the single ones by their place in the run file).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmalign.core.errors import ConfigError, MmalignError

Faults = Iterator[str | MmalignError]
Look = Callable[..., Faults | None]
Make = TypeVar("Make", bound=Callable[..., Any])


@dataclass(frozen=True)
class Check:
    """One check, and whether only `training` asks for it."""

    look: Look
    training: bool

    @property
    def stage(self) -> str:
        """The name of its file."""
        return self.look.__module__.rpartition(".")[2]


CHECKS: list[Check] = []
PARTS: dict[str, Callable[..., Any]] = {}


def check(look: Look) -> Look:
    """Register a check."""
    CHECKS.append(Check(look, training=False))
    return look


def check_training(look: Look) -> Look:
    """Register a check that is left out where nothing trains."""
    CHECKS.append(Check(look, training=True))
    return look


def part(make: Make) -> Make:
    """Register how the part of this function's name is made of other parts."""
    PARTS[make.__name__] = make
    return make


def stages() -> list[str]:
    """Return the files of this folder, all imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for name in names:
        importlib.import_module(f"{__name__}.{name}")
    return names


class Unknown(Exception):
    """A part that is not there, because of a fault that is already told."""


@dataclass
class Inspection:
    """What is known of a run, and everything found wrong with it so far."""

    known: dict[str, Any]
    faults: list[MmalignError] = field(default_factory=list)
    unjudged: dict[str, int] = field(default_factory=dict)  # checks by stage
    _absent: set[str] = field(default_factory=set)

    def run(self, only: Collection[str] = (), training: bool = True) -> None:
        """All checks, or those of the stages `only`; what they find goes to `faults` and `unjudged`."""
        for stage in [name for name in stages() if not only or name in only]:
            for each in [entry for entry in CHECKS if entry.stage == stage and (training or not entry.training)]:
                self._look(each)

    def part(self, name: str) -> Any:
        """Return the part, made of others if need be; Unknown if a fault stands in the way."""
        if name not in self.known and name not in self._absent and name in PARTS:
            try:
                self.known[name] = PARTS[name](**self._named(PARTS[name]))
            except MmalignError as error:
                self._add(error)
            except Unknown:
                pass
        if name not in self.known:
            self._absent.add(name)
            raise Unknown(name)
        return self.known[name]

    def _named(self, function: Callable[..., Any]) -> Mapping[str, Any]:
        return {name: self.part(name) for name in inspect.signature(function).parameters}

    def _look(self, each: Check) -> None:
        try:
            parts = self._named(each.look)
        except Unknown:
            self.unjudged[each.stage] = self.unjudged.get(each.stage, 0) + 1
            return
        try:
            faults = list(each.look(**parts) or ())
        except MmalignError as error:
            faults = [error]
        for fault in faults:
            self._add(ConfigError(fault) if isinstance(fault, str) else fault)

    def _add(self, fault: MmalignError) -> None:
        """Files that are read for several reasons have one fault."""
        if str(fault) not in map(str, self.faults):
            self.faults.append(fault)

    def left_out(self) -> list[str]:
        """Return a sentence for each stage that could not be judged in full."""
        of = {stage: sum(each.stage == stage for each in CHECKS) for stage in self.unjudged}
        return [
            f"{stage}: {count} of {of[stage]} checks wait until that is mended."
            for stage, count in self.unjudged.items()
        ]
