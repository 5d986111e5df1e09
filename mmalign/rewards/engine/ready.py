"""What a reward needs is loaded before it is asked: what cannot be loaded is a fault of the set-up, not of a row.

A reward with a method `prepare` loads what it needs there. Of others, every attribute that is made on first use
(`LoadedOnUse`, `cached_property`) is looked at once, and so are those of the parts of mmalign that it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from mmalign.core.errors import ConfigError, MmalignError
from mmalign.rewards.engine.calls import SLOW, said_if_slow, same_folder
from mmalign.rewards.engine.on_use import LoadedOnUse
from mmalign.rewards.engine.quiet_random import quiet_random

_LONGEST = 300  # characters of a library's own words


def prepare(reward: Any, place: str) -> None:
    """Load what `reward` needs; twice costs nothing. `place` is how messages call it.

    Raises:
        MmalignError: its own fault, or ConfigError with what the library that loads it said: no such checkpoint, no
            network, a file that is none, a package that is missing.
    """
    try:
        with quiet_random(), same_folder(), said_if_slow(f"{place} has been loading", SLOW):
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
    found: dict[str, MmalignError] = {}
    for place, reward in rewards.items():
        try:
            prepare(reward, place)
        except MmalignError as error:
            found[place] = error
    if len(found) == 1:
        raise next(iter(found.values()))
    if found:
        raise ConfigError(
            [said if (said := str(e)).startswith(place) else f"{place}: {said}" for place, e in found.items()]
        )


def _load(part: Any, seen: set[int]) -> None:
    kind = type(part)
    if id(part) in seen:
        return
    seen.add(id(part))
    if hasattr(kind, "prepare"):
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
        for name, held in vars(base).items()
        if isinstance(held, LoadedOnUse | cached_property)
    ]
