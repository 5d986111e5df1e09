"""Packages that must match although their own metadata do not say so, and packages that are there but do not load.

Only metadata are read, until something is loaded: then what may be left out is tried, because torchaudio beside a torch
that it was not made for ends the import of transformers, even where no sound is made.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from mmalign.core.errors import MmalignWarning, PackageError


@dataclass(frozen=True)
class Rule:
    """`package` in the range `versions` loads only beside `other` in `needs`; `seen` says how that was found."""

    package: str
    versions: str
    other: str
    needs: str
    seen: str


# Each was tried: what the package does beside a version outside `needs`.
RULES = (
    Rule("torchaudio", ">=2.11.1", "torch", ">=2.13", "an undefined symbol"),
    Rule("torchaudio", "<2.11.1", "torch", "<2.15", "another CUDA version"),
    Rule("pyarrow", ">=26", "numpy", ">=2", "numpy 1 is refused at run time"),
)
OPTIONAL = frozenset({"torchaudio"})  # what a task may do without: only sounds need it


def installed(package: str) -> str | None:
    """Return the version that is installed, None if none is."""
    try:
        return importlib.metadata.version(package)
    except PackageNotFoundError:
        return None


def stamp_of(package: str) -> str:
    """Return the package's name and version: what a reward whose weights it holds is told apart by."""
    return f"{package} {installed(package) or 'not installed'}"


def mismatches() -> dict[str, str]:
    """The packages that cannot load beside what is installed, with both versions and the command that mends it."""
    faults = {}
    for rule in (*RULES, *_pinned_by("torchvision")):
        have, other = installed(rule.package), installed(rule.other)
        if have and other and _within(have, rule.versions) and not _within(other, rule.needs):
            faults[rule.package] = (
                f"{rule.package} {have} does not load beside {rule.other} {other} ({rule.seen}); it needs {rule.other}"
                f"{rule.needs}. Mend it with: pip install '{rule.package}{_own_range(rule.package)}' "
                f"'{rule.other}{_own_range(rule.other)}'"
            )
    return faults


@lru_cache(maxsize=1)
def require_matching_once() -> None:
    """Once a process, before the first component is made: refuse pairs that do not match; nothing is imported."""
    require_matching()


def require_matching() -> None:
    """Raise PackageError naming every pair that does not match, but for packages that a task may do without."""
    if faults := [sentence for name, sentence in mismatches().items() if name not in OPTIONAL]:
        raise PackageError("\n".join(faults))


@lru_cache(maxsize=1)
def leave_out_broken() -> None:
    """Once a process: make optional packages that are installed and do not import look absent, with a warning.

    Called before anything is loaded: transformers and diffusers import torchaudio wherever they find it.
    """
    for name in sorted(OPTIONAL):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a library that does not load raises what it likes
            sentence = mismatches().get(name) or f"{name} {installed(name)} does not load ({_first_line(error)})."
            for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[module]
            sys.modules[name] = None  # type: ignore[assignment]
            _forget(f"is_{name}_available")
            warnings.warn(f"left out, only sounds need it: {sentence}", MmalignWarning, stacklevel=2)


def _forget(answer: str) -> None:
    """Let transformers ask again, where it was imported before this and remembers that the package is there."""
    known = getattr(sys.modules.get("transformers.utils.import_utils"), answer, None)
    if known is not None and hasattr(known, "cache_clear"):
        known.cache_clear()


def need(package: str) -> Any:
    """Return the module `package`, which the task cannot do without; PackageError if it is missing or does not load."""
    name = package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except Exception as error:  # a library that does not load raises what it likes
        have = installed(name)
        sentence = mismatches().get(name) or (
            f"{name} {have} does not load: {_first_line(error)}."
            if have
            else f"{name} is needed and not installed: pip install '{name}{_own_range(name)}'"
        )
        raise PackageError(sentence) from error


def outside_ranges() -> list[str]:
    """Return the packages whose installed version mmalign was not tested with, by the ranges of its own metadata."""
    from packaging.requirements import Requirement

    faults = []
    for text in requires("mmalign") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        have = installed(wanted.name)
        if have is None:
            faults.append(f"{wanted.name} is not installed ({wanted.specifier})")
        elif not wanted.specifier.contains(have, prereleases=True):
            faults.append(f"{wanted.name} {have} is outside {wanted.specifier}")
    return faults


def extras() -> dict[str, list[str]]:
    """Return the packages that are not installed, by extra of mmalign's metadata (without those that bundle others)."""
    from importlib.metadata import metadata

    from packaging.requirements import Requirement

    named = metadata("mmalign").get_all("Provides-Extra") or []
    wanted = [Requirement(text) for text in requires("mmalign") or []]
    beside = [r for r in wanted if r.marker and not r.marker.evaluate({"extra": ""})]
    sets = {extra: {r.name for r in beside if r.marker and r.marker.evaluate({"extra": extra})} for extra in named}
    bundles = {extra for extra in sets if any(other and other < sets[extra] for other in sets.values())}
    return {
        extra: sorted(name for name in names if installed(name) is None)
        for extra, names in sets.items()
        if names and extra not in bundles
    }


def transformers_wants_peft() -> str:
    """What plain transformers and diffusers cannot load with this peft, '' if nothing; mmalign itself does not ask."""
    import re
    from importlib.util import find_spec
    from pathlib import Path

    spec, have = find_spec("transformers"), installed("peft")
    if spec is None or spec.origin is None or have is None:
        return ""
    asks = Path(spec.origin).parent / "integrations" / "peft.py"
    minimum = (
        re.search(r'^MIN_PEFT_VERSION = "([\d.]+)"', asks.read_text(encoding="utf-8"), re.M) if asks.is_file() else None
    )
    if minimum is None or _within(have, f">={minimum[1]}"):
        return ""
    return (
        f"transformers {installed('transformers')} attaches LoRAs by itself only with peft {minimum[1]} or newer, here "
        f"is {have}; mmalign and PeftModel.from_pretrained do not need that"
    )


def _pinned_by(package: str) -> list[Rule]:
    """The torch that `package` itself asks for: resolvers keep to it, installations by hand need not."""
    from packaging.requirements import Requirement

    if installed(package) is None:
        return []
    wanted = [Requirement(text) for text in requires(package) or []]
    seen = "its compiled operators are of another torch"
    return [Rule(package, ">=0", r.name, str(r.specifier), seen) for r in wanted if r.name == "torch" and r.specifier]


def _own_range(package: str) -> str:
    """The range of `package` in mmalign's own metadata, '' where it is not there."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in requires("mmalign") or []]
    except PackageNotFoundError:
        return ""
    return next((str(r.specifier) for r in wanted if r.name == package and r.marker is None), "")


def _within(have: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(have.partition("+")[0], prereleases=True)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
