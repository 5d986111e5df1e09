"""A name is a file: component `name` lives in `<package>/<name>.py` as the first entry of that file's `__all__`.

Listing imports nothing. Outside components come by entry points (`mmalign.<kind>s`) or, where the command line allows
the module, as "module:Class".
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mmalign.core import packages
from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.explain import explained

_MARK = {"extra": "forbid", "arbitrary_types_allowed": True, "allow_inf_nan": False}
T = TypeVar("T")


class Registry:
    """Components of one `kind` ("reward"), built in under `package` or installed as plugins."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package

    def names(self) -> list[str]:
        """Every built-in and plugin name, without importing any of them."""
        path = importlib.import_module(self.package).__path__
        builtin = {m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_") and not m.ispkg}
        return sorted(builtin | set(self._plugins()))

    def get(self, name: str, allow: Collection[str] = ()) -> type[Any]:
        """The class called `name`; "module:Class" only for modules in `allow`."""
        if ":" in name:
            return self._outside(name, allow)
        if name in (plugins := self._plugins()):
            return self._checked(plugins[name].load(), name)
        if name not in (names := self.names()):
            raise ConfigError(
                f"no {self.kind} is called '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}."
            )
        module = importlib.import_module(f"{self.package}.{name}")
        return getattr(module, module.__all__[0])  # type: ignore[no-any-return]

    def build(self, spec: Mapping[str, Any], at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the component that `spec` (`name` and its options) describes; `at` is its place in the run file."""
        packages.settle()
        options = {k: v for k, v in spec.items() if k != "name"}
        if not isinstance(spec.get("name"), str):
            raise ConfigError(f"{at}.name: missing. Known: {', '.join(self.names())}.")
        try:
            component = self.get(spec["name"], allow)
        except ConfigError as error:
            raise ConfigError([f"{at}.name: {fault}" for fault in error.faults]) from None
        return construct(component, options, at, **given)

    def _outside(self, name: str, allow: Collection[str]) -> type[Any]:
        module, _, attribute = name.partition(":")
        if module not in allow:
            raise ConfigError(f"'{name}' is outside mmalign; run files may name it only with --allow {module}.")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there; what it imports is not
            raise ConfigError(
                f"'{name}': there is no module '{module}'; it must lie in this folder, on PYTHONPATH, or be installed."
            ) from None
        except AttributeError:
            raise ConfigError(f"'{name}': module '{module}' has no '{attribute}'.") from None
        return self._checked(found, name)

    def _checked(self, found: Any, name: str) -> type[Any]:
        """A component from elsewhere, if run files can give it options."""
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            return found
        is_a = "class" if isinstance(found, type) else type(found).__name__
        rule = "decorate it with @mmalign.rule or " if self.kind == "reward" and is_a != "class" else ""
        raise ConfigError(f"'{name}': is a {is_a}, not a dataclass; {rule}make it a dataclass.")

    def _plugins(self) -> dict[str, EntryPoint]:
        return {e.name: e for e in entry_points(group=f"mmalign.{self.kind}s")}


def construct(component: type[T], options: Mapping[str, Any], at: str, **given: Any) -> T:
    """`component(**options, **given)` with every fault at once; `given` (already built parts) is not validated."""
    made, faults = attempted(component, options, at, **given)
    if made is None:
        raise ConfigError(faults)
    return made


def attempted(component: type[T], options: Mapping[str, Any], at: str, **given: Any) -> tuple[T | None, list[str]]:
    """`component(**options, **given)` and [], or None and everything that is wrong with the options."""
    if clash := sorted(set(options) & set(given)):
        return None, [f"{at}.{key}: is set by mmalign itself; remove it." for key in clash]
    component.__pydantic_config__ = ConfigDict(**_MARK)  # type: ignore[attr-defined, typeddict-item]
    try:
        return TypeAdapter(component).validate_python({**options, **given}), []
    except ValidationError as error:
        return None, explained(error.errors(), options, at, component, given)
