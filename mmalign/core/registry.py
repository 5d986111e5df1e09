"""A name is a file: component `name` lives in `<package>/<name>.py` or, where the package has families, in
`<package>/<family>/<name>.py`, as the first entry of that file's `__all__`. Names are unique over all families.

Listing imports nothing. Components of other distributions come by entry points, in a group named as `mmalign list`
names the kind (`mmalign.rewards`, `mmalign.policies`, `mmalign.data`, …), or, where the command line allows the module,
as "module:Class".
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mmalign.core import packages
from mmalign.core.allowed import allow_here
from mmalign.core.errors import ConfigError, MmalignError, as_list, did_you_mean, shown
from mmalign.core.explain import explained

_MARK = {"extra": "forbid", "arbitrary_types_allowed": True, "allow_inf_nan": False}
T = TypeVar("T")


log = logging.getLogger("mmalign")


class Registry:
    """Components of one `kind` ("reward", in the plural `group`), built in under `package` or installed as plugins.

    `families` are the folders of `package` whose files are components; without any, the files of `package` itself are.
    `elsewhere` says of names that other projects use how to have the same here; its keys are `_bare`.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        plural: str = "",
        families: Sequence[str] = (),
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.package, self.elsewhere = kind, package, elsewhere or {}
        self.group = f"mmalign.{plural or f'{kind}s'}"
        self.families = tuple(families)

    def names(self) -> list[str]:
        """Every built-in and plugin name, without importing any of them."""
        return sorted({*self.built_in(), *self.plugins()})

    def built_in(self) -> dict[str, str]:
        """Return the names of mmalign's own, in their order, and the module of each."""
        return dict(sorted((name, module) for name, module in self._files()))

    def family(self, name: str) -> str:
        """The folder that the built-in component `name` lies in; "" for a plugin, and where there are no families."""
        module = self.built_in().get(name, "")
        return module.split(".")[-2] if self.families and module else ""

    def _files(self) -> Iterator[tuple[str, str]]:
        home = Path(importlib.import_module(self.package).__path__[0])
        for folder in self.families or ("",):
            inside = f"{self.package}.{folder}" if folder else self.package
            for name in _modules_in(home / folder, (home / folder).stat().st_mtime_ns):
                yield name, f"{inside}.{name}"

    def plugins(self) -> dict[str, list[EntryPoint]]:
        """Return what installed distributions offer by name; more than one of a name is a clash."""
        points: dict[str, list[EntryPoint]] = {}
        for group in dict.fromkeys([self.group, f"mmalign.{self.kind}s"]):
            for point in _entry_points(tuple(sys.path)):
                if point.group != group:
                    continue
                if group != self.group:
                    _warn_of_old(group, self.group, origin(point))
                known = points.setdefault(point.name, [])
                if all((point.value, origin(point)) != (each.value, origin(each)) for each in known):
                    known.append(point)
        return points

    def clash(self, name: str) -> str:
        """Return a sentence if more than one component is called `name`, else ""."""
        points = self.plugins().get(name, [])
        owners = [*(["mmalign itself"] if name in self.built_in() else []), *map(origin, points)]
        if len(points) == 0 or len(owners) < 2:
            return ""
        return (
            f"{len(owners)} {self.group.partition('.')[2]} are called '{name}': of {' and of '.join(owners)}. "
            "Uninstall one, rename its entry point, or name the class itself as module:Class with --allow."
        )

    def get(self, name: str, allow: Collection[str] = ()) -> type[Any]:
        """The class called `name`; "module:Class" only for modules in `allow`, or inside of a package that is."""
        if ":" in name:
            return self._outside(name, allow)
        if clash := self.clash(name):
            raise ConfigError(clash)
        if points := self.plugins().get(name):
            return self._checked(loaded(points[0]), name)
        module_name = self.built_in().get(name)
        if module_name is None:
            raise ConfigError(f"no {self.kind} is called '{name[:80]}'.{self._meant(name[:80])}")
        module = importlib.import_module(module_name)
        if not getattr(module, "__all__", None):
            raise ConfigError(f"'{name}': {module.__file__} has no __all__; name the component's class first in it.")
        return self._checked(getattr(module, module.__all__[0]), name)

    def _meant(self, name: str) -> str:
        """What a name that is none was meant for, and all that there are."""
        names, bare = self.names(), _bare(name)
        if bare in self.elsewhere:
            hint = self.elsewhere[bare]
            return f" {hint[:1].upper()}{hint[1:]}"
        same = [each for each in names if _bare(each) == bare]
        near = f" Did you mean '{same[0]}'?" if same else did_you_mean(name, names)
        return f"{near} Known: {', '.join(names)}."

    def build(self, spec: Any, at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the component that `spec` (`name` and its options) describes; `at` is its place in the run file.

        One with a field `make` is given the way to build parts of its own (`making`), unless `given` has one.
        """
        packages.require_matching_once()
        self.require_spec(spec, at)
        options = {k: v for k, v in spec.items() if k != "name"}
        try:
            component = self.get(spec["name"], allow)
        except ConfigError as error:
            raise ConfigError([f"{at}.name: {fault}" for fault in error.faults]) from None
        return construct(component, options, at, **{**making(component, at, allow), **given})

    def require_spec(self, spec: object, at: str) -> None:
        """Raise ConfigError unless `spec`, at `at` in the run file, is a section with the name of a component."""
        if not isinstance(spec, Mapping) or not all(isinstance(key, str) for key in spec):
            raise ConfigError(
                f"{at}: must be written as {{name: …}}, with the options of a {self.kind} (got {shown(spec)})"
            )
        if not isinstance(spec.get("name"), str):
            raise ConfigError(f"{at}.name: missing. Known: {', '.join(self.names())}.")

    def _outside(self, name: str, allow: Collection[str]) -> type[Any]:
        module, _, attribute = name.partition(":")
        allow = as_list(allow, "allow", '["mine"]')
        if not any(f"{module}.".startswith(f"{each}.") for each in allow):
            raise ConfigError(f"'{name}' is outside mmalign; run files may name it only with --allow {module}.")
        try:
            allow_here(module)
            component = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"'{name}': module '{module}' needs '{error.name}', which is not installed; "
                    f"if it lies in this folder, add --allow {error.name}."
                ) from error
            raise ConfigError(
                f"'{name}': there is no module '{module}'; it must lie in this folder, on PYTHONPATH, or be installed."
            ) from None
        except AttributeError:
            raise ConfigError(f"'{name}': module '{module}' has no '{attribute}'.") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"'{name}': write it as module:Class ({error}).") from None
        return self._checked(component, name)

    def _checked(self, component: object, name: str) -> type[Any]:
        """A component from elsewhere, if run files can give it options."""
        if isinstance(component, type) and dataclasses.is_dataclass(component):
            return component
        is_a = "class" if isinstance(component, type) else type(component).__name__
        rule = "decorate it with @mmalign.rule or " if self.kind == "reward" and is_a != "class" else ""
        raise ConfigError(f"'{name}': is a {is_a}, not a dataclass; {rule}make it a dataclass.")


@lru_cache(maxsize=64)
def _modules_in(folder: Path, changed: int) -> tuple[str, ...]:
    """The public modules that lie in `folder`, listed anew once its time of change is another."""
    modules = pkgutil.iter_modules([str(folder)])
    return tuple(module.name for module in modules if not module.name.startswith("_") and not module.ispkg)


@lru_cache(maxsize=512)
def _validator(component: Any) -> Any:
    """What makes a component of its options; made once for a class, since pydantic takes 10 ms for it."""
    component.__pydantic_config__ = ConfigDict(**_MARK)  # type: ignore[typeddict-item]
    return TypeAdapter(component)


def registry_of(plural: str) -> Registry:
    """The registry of mmalign's own package `plural` (adapters, rewards, rewards.encoders): for parts made of others.

    It is looked up when it is needed, for packages of one layer do not import each other.
    """
    registry = getattr(importlib.import_module(f"mmalign.{plural}"), plural.rpartition(".")[2])
    assert isinstance(registry, Registry), f"mmalign.{plural} has no registry of that name"
    return registry


def making(component: type, at: str, allow: Collection[str]) -> dict[str, Any]:
    """{"make": …} for a component with a field of that name: what builds parts of its own from sections behind `at`.

    `make(plural, section, place, **parts)` is the component of the registry `plural`.
    """

    def make(plural: str, part: Any, place: str, **parts: Any) -> Any:
        return registry_of(plural).build(part, f"{at}.{place}", allow, **parts)

    return {"make": make} if any(field.name == "make" for field in dataclasses.fields(component)) else {}


def _bare(name: str) -> str:
    """A name in lower case, of letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=4)
def _entry_points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of mmalign's groups, read once for a `path`: it opens the files of every distribution."""
    first: dict[str, Distribution] = {}
    for distribution in distributions():  # of two distributions of one name, Python imports the first on the path
        first.setdefault(distribution.name, distribution)
    return tuple(point for each in first.values() for point in each.entry_points if point.group.startswith("mmalign."))


def origin(point: EntryPoint) -> str:
    """Return the distribution that an entry point is of, with its version."""
    return (
        f"{point.dist.name} {point.dist.version}"
        if point.dist is not None
        else f"an unnamed distribution ({point.value})"
    )


def loaded(point: EntryPoint) -> Any:
    """Return what an entry point names; ConfigError if its distribution does not hold it, or does not load."""
    try:
        return point.load()
    except Exception as error:  # a distribution that does not load raises what it likes
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"'{point.name}': {point.value} of {origin(point)} does not load ({why}).") from error


@lru_cache(maxsize=64)
def _warn_of_old(group: str, now: str, owner: str) -> None:
    """Warn of a plugin in the old group, once for each distribution."""
    log.warning("%s: its entry points stand under '%s'; the group is called '%s' now.", owner, group, now)


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
    make = _validator(component)  # type: ignore[arg-type]  # mypy does not know that classes are hashable
    try:
        return make.validate_python({**options, **given}), []
    except ValidationError as error:
        faults = explained(error.errors(), options, at, component, given)
        return None, faults + _of_the_others(component, options, at, given, {str(f["loc"][:1]) for f in error.errors()})


def _names(sentence: str, option: str) -> bool:
    return re.search(rf"\b{re.escape(option)}\b", sentence) is not None


def _of_the_others(
    component: type[Any], options: Mapping[str, Any], at: str, given: Mapping[str, Any], bad_keys: set[str]
) -> list[str]:
    """What the component itself says of its options where those in `bad_keys` stand at defaults.

    Pydantic asks it only once all types are right. A fault that names one of the wrong options may come of its default
    and is left out.
    """
    names = [name for name in options if str((name,)) in bad_keys]
    if not names or str(()) in bad_keys:
        return []
    rest = {name: value for name, value in options.items() if name not in names}
    try:
        _validator(component).validate_python({**rest, **given})  # type: ignore[arg-type]
    except ValidationError as error:
        own = [fault for fault in error.errors() if not fault["loc"]]
        return [
            sentence
            for sentence in explained(own, rest, at, component, given)
            if not any(_names(sentence, name) for name in names)
        ]
    except MmalignError as error:  # a missing package, parts that do not fit: beside the wrong types, not instead
        return [f"{at}: {error}"]
    return []
