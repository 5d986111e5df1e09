"""What the function of a `@rule` asks for, read from its signature; and what no such function can be, refused."""

from __future__ import annotations

import dataclasses
import dis
import inspect
import math
import typing
from collections.abc import Callable, Iterable
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.types import Modality, Prompt

_MODALITIES = typing.get_args(Modality)
_SHAPE = "write it as (prompt, output, columns…, *, options…)"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The arguments of a rule in their order, its options as dataclass fields, and the columns it cannot do without."""

    arguments: tuple[Callable[[Prompt, Any], Any], ...]
    options: list[Any]
    columns: tuple[str, ...]


def asked_by(function: Callable[..., Any]) -> Asked:
    """Arguments by their names: `prompt`, `output`, and any other a column of `Prompt.meta`; options by keyword.

    Raises:
        ConfigError: everything about it that no rule can have, at once.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if faults := [f"@rule {function.__name__}: {fault}." for fault in (*_of_kind(function), *_of_names(parameters))]:
        raise ConfigError(faults)
    hints = typing.get_type_hints(function, include_extras=True)
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    columns = tuple(
        p.name for p in positional if p.name not in ("prompt", "output") and p.default is inspect.Parameter.empty
    )
    arguments = tuple(_argument(p, hints.get(p.name)) for p in positional)
    return Asked(arguments, [_option(p, hints) for p in parameters if p.kind is p.KEYWORD_ONLY], columns)


def check_declared(name: str, modalities: Iterable[str] | None, bounds: Any) -> None:
    """Raise ConfigError unless modalities and range are such."""
    faults = []
    if modalities is None or isinstance(modalities, str) or not set(modalities) or set(modalities) - set(_MODALITIES):
        faults.append(f"modalities: {modalities!r}; name them as a set, of {', '.join(_MODALITIES)}")
    numbers = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)
    if not numbers or any(math.isnan(b) for b in bounds) or not bounds[0] < bounds[1]:
        faults.append(f"range: {bounds!r}; give the least and the largest value, as (0.0, 1.0)")
    if faults:
        raise ConfigError([f"@rule {name}: {fault}." for fault in faults])


def _of_kind(function: Callable[..., Any]) -> list[str]:
    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return ["is async, and rules are called one after another; write it with def"]
    if inspect.isgeneratorfunction(plain):
        return ["yields, and a rule returns one value; write return"]
    return [] if _returns(plain) else ["returns nothing, so that it would apply to no row; return a number"]


def _of_names(parameters: list[inspect.Parameter]) -> list[str]:
    faults = []
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        faults.append(f"takes *arguments or **arguments, which have no names to give it by; {_SHAPE}")
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if "output" not in positional:
        named = ", ".join(positional) or "none"
        faults.append(f"has no argument called output, which is what it is to judge (it has {named}); {_SHAPE}")
    bare = [p.name for p in parameters if p.default is not p.empty and p.default.__class__.__hash__ is None]
    if bare:
        faults.append(f"{_SHAPE} with immutable defaults; not so: {', '.join(bare)}")
    return faults


def _argument(parameter: inspect.Parameter, hint: Any) -> Callable[[Prompt, Any], Any]:
    name, default = parameter.name, parameter.default
    if name == "output":
        return lambda prompt, output: output
    if name == "prompt":
        return (lambda prompt, output: prompt.text) if hint is str else (lambda prompt, output: prompt)
    return lambda prompt, output: default if (held := prompt.meta.get(name)) is None else held


def _option(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    hint = hints.get(parameter.name, Any)
    if parameter.default is parameter.empty:
        return parameter.name, hint
    return parameter.name, hint, dataclasses.field(default=parameter.default)


def _returns(function: Callable[..., Any]) -> bool:
    """Is there any return of something other than a plain None? (Always, of what is not written in Python.)"""
    if not hasattr(function, "__code__"):
        return True
    before = None
    for step in dis.get_instructions(function):
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return True
        plain = before is not None and before.opname == "LOAD_CONST" and before.argval is None
        if step.opname == "RETURN_VALUE" and (step.is_jump_target or not plain):
            return True
        before = step
    return False
