"""What a run file says of a component, with every default filled in: plain data that YAML can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmalign.core.config import Spec

__all__ = ["GIVEN", "slot_options", "with_defaults", "yaml_data"]

GIVEN = ("adapter", "reward", "relative_to", "make")  # fields that the run sets, never the file


def with_defaults(spec: Spec, component: Any) -> Spec:
    """`spec` with the component's own defaults filled in, as plain data."""
    if component is None:
        return dict(spec)
    options = {
        f.name: yaml_data(getattr(component, f.name))
        for f in dataclasses.fields(component)
        if f.init and f.name not in GIVEN and not f.name.startswith("_")
    }
    return {"name": spec["name"], **options}


def slot_options(slot: Any) -> Spec:
    """Return the options of a reward's slot (weight, monitor, …)."""
    return {f.name: yaml_data(getattr(slot, f.name)) for f in dataclasses.fields(slot) if f.init and f.name != "reward"}


def yaml_data(value: object) -> Any:
    """Return `value` as data that YAML can hold: records and mappings as dicts, sequences as lists, else its text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: yaml_data(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): yaml_data(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [yaml_data(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
