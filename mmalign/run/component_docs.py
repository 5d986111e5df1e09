"""What a component is and takes, read from its docstring and from the types of its options."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Collection
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from mmalign.core.errors import shown
from mmalign.run.defaults import GIVEN

__all__ = ["ComponentDocs", "OptionDocs", "component_docs", "section_docs", "values"]

_ARGS = re.compile(r"^Args:\n((?: {4}.*\n?|\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
_SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


@dataclasses.dataclass(frozen=True)
class OptionDocs:
    """An option: its default as a run file writes it ("required" without one), its values in words, its meaning."""

    name: str
    default: str
    values: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class ComponentDocs:
    """A component's module, its docstring without the options, and its options."""

    source: str
    prose: str
    options: tuple[OptionDocs, ...]


def component_docs(component: type[Any]) -> ComponentDocs:
    """Return what a component's class says of itself; options that a run fills in are left out."""
    return dataclasses.replace(section_docs(component), options=_options(component, GIVEN))


def section_docs(section: type[Any]) -> ComponentDocs:
    """Return what a dataclass of a run file's typed section says of itself, with all its options."""
    prose = _ARGS.sub("", inspect.cleandoc(section.__doc__ or "")).strip()
    return ComponentDocs(section.__module__, prose, _options(section, ()))


def _options(component: type[Any], given: Collection[str]) -> tuple[OptionDocs, ...]:
    meanings, hints = _meanings(component), _hints(component)
    return tuple(
        OptionDocs(f.name, _default(f), values(hints.get(f.name, Any)), meanings.get(f.name, ""))
        for f in dataclasses.fields(component)
        if f.init and not f.name.startswith("_") and f.name not in given
    )


def values(kind: Any) -> str:
    """Return a type in words: "whole number ≥ 0", "'mean' or 'sum'", "list of number"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        bounds = [f"{_SIGNS[type(each)]} {_bound(each)}" for each in arguments[1:] if type(each) in _SIGNS]
        return " ".join([values(arguments[0]), " and ".join(bounds)]).strip()
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(values, arguments))
    if origin in (list, tuple, set, frozenset):
        inner = dict.fromkeys(values(each) for each in arguments if each is not Ellipsis)
        return f"list of {', '.join(inner)}" if inner else "list"
    if origin is dict or kind is dict:
        return "mapping"
    if dataclasses.is_dataclass(kind):
        return f"mapping: {', '.join(field.name for field in dataclasses.fields(kind))}"
    return _WORDS.get(kind, "any value" if kind is Any else getattr(kind, "__name__", str(kind)))


def _bound(bound: Any) -> str:
    return f"{next(iter(dataclasses.asdict(bound).values())):g}"


def _hints(component: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(component, include_extras=True)
    except NameError:  # a type that is imported for checking only: its name has to do
        return {field.name: field.type for field in dataclasses.fields(component)}


def _default(option: dataclasses.Field[Any]) -> str:
    if option.default is not dataclasses.MISSING:
        return shown(option.default)
    if option.default_factory is not dataclasses.MISSING:
        return shown(option.default_factory())
    return "required"


def _meanings(component: type[Any]) -> dict[str, str]:
    """The meaning of each option, of the class itself or of those that it extends."""
    return dict(item for kind in reversed(component.__mro__) for item in _arguments(kind).items())


def _arguments(kind: type[Any]) -> dict[str, str]:
    """The meaning of each argument that the docstring of a class itself explains."""
    section = _ARGS.search(inspect.cleandoc(vars(kind).get("__doc__") or ""))
    entries = _ARGUMENT.findall(section[1]) if section else []
    return {name: meaning.rstrip() for names, meaning in entries for name in names.split(", ")}
