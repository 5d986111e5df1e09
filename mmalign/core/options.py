"""Ranges of numeric options, written once beside the option and checked wherever options come from.

    rows: Count = 0
    lr: Positive = 1e-4
    clip_high: Positive | None = None

Numbers are finite (NaN and infinity are refused) unless a type says otherwise. `construct` reads these types, so that
all options that are out of range are told at once.

Rules across options stand in `__post_init__`, each as what must hold and the sentence for where it does not:

    refuse(
        must(self.clip > 0, f"clip: {self.clip} must be positive."),
        requires(self.guard, self.ratio == "step", "guard: is of single steps; set ratio: step."),
    )

`one_of`, `at_least` and `within` are for components that Python makes without `construct`, and for ranges that depend
on another option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan

from mmalign.core.errors import ConfigError, did_you_mean

Count = Annotated[int, Ge(0)]  # 0 often means "all" or "never"
AtLeastOne = Annotated[int, Ge(1)]
AtLeastTwo = Annotated[int, Ge(2)]
JpegQuality = Annotated[int, Ge(1), Le(100)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Cosine = Annotated[float, Ge(-1), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
NotNegativeOrInfinite = Annotated[float, Ge(0), AllowInfNan(True)]
PositiveOrInfinite = Annotated[float, Gt(0), AllowInfNan(True)]


def must(holds: bool, sentence: str) -> list[str]:
    """Return the rule that `holds`: [] if it does, else its `sentence`, which names the option and what to set."""
    return [] if holds else [sentence]


def requires(when: bool, then: bool, sentence: str) -> list[str]:
    """Return the rule that `then` holds where `when` does: [] if it is kept, else its `sentence`."""
    return must(not when or then, sentence)


def outside(options: object, names: Iterable[str], range: str, within: Callable[[Any], bool]) -> list[str]:
    """The rule that each option of `names` is `within` the `range`: a sentence for each that is not; NaN never is."""
    values = {name: getattr(options, name) for name in names}
    return [f"{name} must be {range}, not {value}" for name, value in values.items() if not within(value)]


def refuse(*broken: Iterable[str]) -> None:
    """Raise one ConfigError of the sentences of all broken rules; do nothing where every rule is kept."""
    if sentences := [sentence for rule in broken for sentence in rule]:
        raise ConfigError(sentences)


def one_of(name: str, value: object, literal: object) -> None:
    """Raise ValueError unless option `name` is a member of the Literal type."""
    known = [str(member) for member in get_args(literal)]
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}.{did_you_mean(str(value), known)}")


def at_least(name: str, value: int | None, least: int) -> None:
    """Raise ValueError unless option `name` is None or at least `least`."""
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}.")


def within(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    """Raise ValueError unless option `name` is None or in [low, high]."""
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie in [{low:g}, {high:g}].")
