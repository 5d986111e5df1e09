"""Packages that take seconds to import, imported when something is asked of them.

Looking at run files, and saying what is wrong with one, computes nothing. `importlib.util.LazyLoader` does not serve:
every further `import` of the package asks for its `__spec__`, which it takes for use.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()


class _Later(ModuleType):
    """A module that is executed when an attribute is asked for that it has not yet."""

    def __getattr__(self, name: str) -> Any:
        with _LOCK:  # other threads wait until it is whole; the one that executes it finds what is there so far
            if not self.__dict__.get("_begun"):
                self._begun = True
                _execute(self)
        return ModuleType.__getattribute__(self, name)


def _execute(module: _Later) -> None:
    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise ImportError(f"{module.__name__} has nothing to load it")
    module.__path__ = spec.submodule_search_locations or []
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module.__name__, None)
        module._begun = False
        raise
    del module._begun
    module.__class__ = ModuleType  # type: ignore[assignment]


class _Again(Loader):
    """Gives a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.own = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own


class _Once(MetaPathFinder):
    """Finds submodules of `package` that were loaded while they were looked for.

    `import torch.utils` asks the package for its `__path__`, for which that is executed and imports `torch.utils`
    itself; Python does not look again whether it is there, and would execute it a second time.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = sys.modules.get(fullname) if fullname.startswith(f"{self.package}.") else None
        return None if known is None else ModuleSpec(fullname, _Again(known))


def import_later(name: str) -> None:
    """From now on `import name` costs nothing, and its first attribute, or submodule, loads it.

    Nothing happens where it is loaded, or missing: what needs it says so.
    """
    if name in sys.modules or (spec := find_spec(name)) is None:
        return
    made = module_from_spec(spec)
    sys.meta_path.insert(0, _Once(name))
    sys.modules[name] = later = _Later(name, made.__doc__)
    later.__dict__.update({key: value for key, value in made.__dict__.items() if key != "__path__"})
