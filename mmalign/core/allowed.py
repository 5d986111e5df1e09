"""Modules of people's own, found in the current folder by their names alone.

The folder itself is never on the path: a file in a folder of data would otherwise run as soon as some library looks for
an optional module of its name.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class _Here:
    """Finds the modules of `names` in the current folder, after everything that is installed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As `importlib` asks; `path` is any iterable, of a package, and what lies inside of one is found by it."""
        return PathFinder.find_spec(name, [str(Path.cwd())]) if path is None and name in self.names else None


_HERE = _Here()


class Permit:
    """Sent to another process before anything of people's own modules, it lets them be found there, too."""

    def __reduce__(self) -> tuple[object, tuple[list[str]]]:
        return permitted, (sorted(_HERE.names),)


def permitted(modules: list[str]) -> Permit:
    """Return what a `Permit` becomes where it arrives."""
    for module in modules:
        allow_here(module)
    return Permit()


def allow_here(module: str) -> None:
    """From now on `module`, or the package that it is of, may come from the current folder."""
    _HERE.names.add(module.partition(".")[0])
    if _HERE not in sys.meta_path:
        sys.meta_path.append(_HERE)
