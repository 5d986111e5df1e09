"""What every reward owes: one finite value per row, NaN where there is none, the floor for a malformed output."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmalign.core.errors import ScoreError
from mmalign.core.types import Scores, Status

_SLACK = 1e-4  # of the range's size: rounding may step over a declared bound


def checked(scores: Any, rows: int, bounds: tuple[float, float], name: str) -> Scores:
    """`scores` made to hold the contract.

    Values of rows without a score become NaN; PARSE_FAIL rows get the floor; an OK row whose value is NaN, infinite or
    outside the declared range becomes an ERROR that says so.

    Raises:
        ScoreError: the reward's code is wrong whatever the row: not `Scores`, not one value and status per row, an
            unknown status, or PARSE_FAIL with no finite floor.
    """
    _shapes(scores, rows, name)
    ok, failed = scores.status == Status.OK, scores.status == Status.PARSE_FAIL
    if bool(failed.any()) and not math.isfinite(bounds[0]):
        raise ScoreError(
            f"reward '{name}' reports parse_fail on {int(failed.sum())} of {rows} rows, which scores the floor of its "
            f"range, but its range is {bounds}; declare a finite floor."
        )
    value = scores.value.float()
    finite, inside = value.detach().isfinite(), _inside(value.detach(), bounds)
    info = _explained(scores, ok & ~finite, ok & finite & ~inside, bounds)
    status = torch.where(ok & ~(finite & inside), int(Status.ERROR), scores.status).to(torch.int8)
    value = torch.where(status == Status.OK, value, float("nan"))
    if bool(failed.any()):
        value = torch.where(failed, bounds[0], value)
    return Scores(value, status, scores.confidence, scores.per_step, dict(scores.parts), info)


def _shapes(scores: Any, rows: int, name: str) -> None:
    if not isinstance(scores, Scores):
        raise ScoreError(f"reward '{name}' returned {type(scores).__name__}; return Scores.")
    fields: dict[str, Tensor | None] = {"value": scores.value, "status": scores.status, "confidence": scores.confidence}
    fields |= {f"parts[{key}]": part for key, part in scores.parts.items()}
    for field, tensor in fields.items():
        if tensor is not None and tuple(tensor.shape) != (rows,):
            found = tuple(tensor.shape)
            raise ScoreError(f"reward '{name}' returned {field} of shape {found} for {rows} rows; return ({rows},).")
    for field, item in (("per_step", scores.per_step), ("info", scores.info)):
        if item is not None and len(item) != rows:
            raise ScoreError(f"reward '{name}' returned {len(item)} entries of {field} for {rows} rows.")
    if unknown := set(scores.status.tolist()) - set(Status):
        known = ", ".join(f"{s.value} ({s.label})" for s in Status)
        raise ScoreError(f"reward '{name}' returned status {sorted(unknown)[0]}; known: {known}.")


def _inside(value: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    size = high - low if math.isfinite(high - low) else max((abs(b) for b in bounds if math.isfinite(b)), default=0.0)
    slack = _SLACK * max(size, 1e-6)
    return (value >= low - slack) & (value <= high + slack)


def _explained(scores: Scores, endless: Tensor, outside: Tensor, bounds: tuple[float, float]) -> list[str] | None:
    """`info` with a sentence for every row that becomes an error here."""
    if not bool((endless | outside).any()):
        return scores.info
    info = list(scores.info or [""] * len(scores))
    for row in endless.nonzero().flatten().tolist():
        info[row] = f"the value is {float(scores.value[row])}"
    for row in outside.nonzero().flatten().tolist():
        info[row] = f"the value {float(scores.value[row]):g} is outside the declared range {bounds}"
    return info
