"""What a reward needs is loaded before its first call: what cannot be loaded is a fault of the set-up, not of a row.

A reward with a method `prepare` loads what it needs there. Of others, every attribute that is made on first use
(`LoadedOnUse`, `cached_property`) is looked at once, and so are those of the parts of mmalign that it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, overload, runtime_checkable

from mmalign.core.errors import ConfigError, MmalignError
from mmalign.rewards.engine.foreign_code import SLOW, preserve_rng_state, preserve_working_directory, report_if_slow

T = TypeVar("T")


class LoadedOnUse(Generic[T]):
    """An attribute: the model that `_source` names, loaded on first use and shared with others that name it."""

    def __init__(self, load: Callable[[Any], T]) -> None:
        self._load = load

    @overload
    def __get__(self, owner: None, kind: type) -> LoadedOnUse[T]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        """The model; the attribute itself where a class is asked."""
        return self if owner is None else self._load(owner._source)


@runtime_checkable
class Preparable(Protocol):
    """What loads itself before its first use."""

    def prepare(self) -> None:
        """Load models and files; raises what cannot be loaded."""
        ...


_LONGEST = 300  # characters of a library's own words


def prepare(reward: Any, place: str) -> None:
    """Load what `reward` needs; twice costs nothing. `place` is how messages call it.

    Raises:
        MmalignError: its own fault, or ConfigError with what the library that loads it said: no such checkpoint, no
            network, a file that is none, a package that is missing.
    """
    try:
        with preserve_rng_state(), preserve_working_directory(), report_if_slow(f"{place} has been loading", SLOW):
            _load(reward, set())
    except MmalignError:
        raise
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split())
        words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        raise ConfigError(f"{place}: cannot be loaded: {type(error).__name__}: {words}") from error


def prepare_all(rewards: Mapping[str, Any]) -> None:
    """Load what every reward needs, each by its place; those that load themselves (`Guarded`) do.

    Raises:
        MmalignError: the one fault, or a ConfigError of all.
    """
    faults: dict[str, MmalignError] = {}
    for place, reward in rewards.items():
        try:
            prepare(reward, place)
        except MmalignError as error:
            faults[place] = error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        raise ConfigError(
            [
                sentence if (sentence := str(e)).startswith(place) else f"{place}: {sentence}"
                for place, e in faults.items()
            ]
        )


def _load(part: Any, seen: set[int]) -> None:
    kind = type(part)
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Preparable):
        part.prepare()
        return
    for name in _made_on_use(kind):
        getattr(part, name)
    for name, inner in list(getattr(part, "__dict__", {}).items()):
        if name == "reward" or type(inner).__module__.startswith("mmalign.rewards"):
            _load(inner, seen)


def _made_on_use(kind: type) -> list[str]:
    return [
        name
        for base in kind.__mro__
        for name, member in vars(base).items()
        if isinstance(member, LoadedOnUse | cached_property)
    ]
