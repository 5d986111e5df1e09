"""Are the packages installed that only some runs need?

A component says in `packages` which it cannot do without, each with the extra of mmalign that installs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.adapters.weights.quantized import missing_package
from mmalign.core.config import BITSANDBYTES, RunFile
from mmalign.core.errors import MissingExtra, importable
from mmalign.run.checks import Faults, check, check_training


@check_training
def tracker(file: RunFile) -> Faults:
    """Refuse a `trainer.tracker` whose package is not installed."""
    if file.trainer.tracker != "none" and not importable(file.trainer.tracker):
        yield MissingExtra(f"trainer.tracker: {file.trainer.tracker}", "track")


@check_training
def optimizer(file: RunFile) -> Faults:
    """Refuse a `trainer.optimizer` whose library is not installed."""
    if file.trainer.optimizer in BITSANDBYTES and not importable("bitsandbytes"):
        yield MissingExtra(f"trainer.optimizer: {file.trainer.optimizer}", "optimizers")


@check
def quantization(file: RunFile) -> Faults:
    """Refuse an `adapter.quantize` whose package is not installed."""
    if (missing := missing_package(file.adapter.get("quantize", "none"))) is not None:
        yield missing


@check
def components(file: RunFile, classes: Mapping[str, type]) -> Faults:
    """Known by the classes alone, whatever their options."""
    for section, kind in classes.items():
        yield from missing_packages(f"{section} {getattr(file, section)['name']}", kind)


@check
def judging(rewards: Mapping[str, Any], judges: Mapping[str, Any]) -> Faults:
    """Which ones may follow from a reward's options."""
    for place, reward in {**rewards, **judges}.items():
        yield from missing_packages(place, reward)


def missing_packages(place: str, component: object) -> Faults:
    """A sentence for each package of a component that is not there."""
    needed = getattr(component, "packages", {})
    for package, extra in needed.items() if isinstance(needed, Mapping) else ():
        if not importable(package):
            yield MissingExtra(f"{place} (package {package})", extra)
