"""Records of B rows: sliced, moved and joined as one, whatever tensors, lists and records they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import torch

from mmalign.core.tensor import Tensor

T = TypeVar("T")
R = TypeVar("R", bound="Rows")  # not `Self`, which the typed-call hook of the tests cannot resolve in a method alone


@dataclass
class Rows:
    """A record of batched fields: indexing it indexes every field along B. None stays None, a string stays a string."""

    def __len__(self) -> int:
        for f in fields(self):
            if (rows := _length(getattr(self, f.name))) is not None:
                return rows
        return 0

    def __getitem__(self: R, rows: slice | Tensor) -> R:
        return replace(self, **{f.name: _pick(getattr(self, f.name), rows) for f in fields(self)})

    def to(self: R, device: torch.device | str) -> R:
        """The record with every tensor moved to `device`."""
        return replace(self, **{f.name: _move(getattr(self, f.name), device) for f in fields(self)})


def join(parts: Sequence[T]) -> T:
    """Concatenate records, tensors, lists or dicts along B: the inverse of slicing."""
    return cast(T, _join(parts))


def _join(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    if isinstance(first, Rows):
        return replace(first, **{f.name: _join([getattr(part, f.name) for part in parts]) for f in fields(first)})
    return first


def _length(value: Any) -> int | None:
    if isinstance(value, Tensor | Rows | list):
        return len(value)
    if isinstance(value, dict):
        return next((rows for entry in value.values() if (rows := _length(entry)) is not None), None)
    return None


def _pick(value: Any, rows: slice | Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _pick(entry, rows) for key, entry in value.items()}
    if isinstance(value, list):
        return [value[i] for i in torch.arange(len(value))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()]
    if isinstance(value, Tensor | Rows):
        return value[rows.to(value.device) if isinstance(value, Tensor) and isinstance(rows, Tensor) else rows]
    return value


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return {key: _move(entry, device) for key, entry in value.items()}
    return value.to(device) if isinstance(value, Tensor | Rows) else value


__all__ = ["Rows", "join"]
