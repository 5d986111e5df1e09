"""Scores of pieces back into scores of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmalign.core.types import Scores, Status


def without_value(rows: int, status: Status, why: str, device: torch.device | str = "cpu") -> Scores:
    """`rows` rows of one status that carries no value, each with the reason."""
    return Scores(
        value=torch.full((rows,), float("nan"), device=device),
        status=torch.full((rows,), int(status), dtype=torch.int8, device=device),
        info=[why] * rows,
    )


def merge(pieces: Sequence[Scores], device: torch.device | str) -> Scores:
    """The pieces one after another; a part, confidence or step credit that some pieces lack is NaN (0) there."""
    pieces = [piece.to(device) for piece in pieces]
    if len(pieces) == 1:
        return pieces[0]
    names = list(dict.fromkeys(name for piece in pieces for name in piece.parts))
    steps = max((p.per_step.shape[1] for p in pieces if p.per_step is not None), default=0)
    return Scores(
        value=torch.cat([p.value for p in pieces]),
        status=torch.cat([p.status for p in pieces]),
        confidence=_joined(pieces, lambda p: p.confidence, 0.0),
        per_step=torch.cat([_steps(p, steps) for p in pieces]) if steps else None,
        parts={name: torch.cat([_part(p, name) for p in pieces]) for name in names},
        info=[text for p in pieces for text in (p.info or [""] * len(p))] if any(p.info for p in pieces) else None,
    )


def scattered(pieces: Sequence[tuple[Tensor, Scores]], rows: int, device: torch.device | str) -> Scores:
    """Pieces that belong at given row numbers (together every row once), put in row order."""
    whole = merge([scores for _, scores in pieces], device)
    return whole[torch.argsort(torch.cat([index for index, _ in pieces]))] if rows else whole


def _part(piece: Scores, name: str) -> Tensor:
    return piece.parts[name] if name in piece.parts else torch.full_like(piece.value, float("nan"))


def _joined(pieces: Sequence[Scores], field: Callable[[Scores], Tensor | None], fill: float) -> Tensor | None:
    if all(field(p) is None for p in pieces):
        return None
    found = [field(p) for p in pieces]
    return torch.cat([torch.full_like(p.value, fill) if v is None else v for p, v in zip(pieces, found, strict=True)])


def _steps(piece: Scores, steps: int) -> Tensor:
    if piece.per_step is None:
        return piece.value.new_zeros(len(piece), steps)
    return torch.nn.functional.pad(piece.per_step, (0, steps - piece.per_step.shape[1]))
