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

    Values of rows without a score become NaN; PARSE_FAIL rows get the floor, their steps what `floor_of_steps` says; an
    OK row whose value, credit of a step or confidence is NaN or infinite, or whose value is outside the declared range,
    becomes an ERROR that says so.

    Raises:
        ScoreError: the reward's code is wrong whatever the row: not `Scores`, not one real value and status per row, an
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
    why = _faults(scores, value.detach(), bounds)
    broken = ok & torch.tensor([bool(text) for text in why], device=ok.device)
    info = scores.info
    if bool(broken.any()):
        info = [
            text if bad else told for text, bad, told in zip(why, broken.tolist(), info or [""] * rows, strict=True)
        ]
    status = torch.where(broken, int(Status.ERROR), scores.status).to(torch.int8)
    value = torch.where(status == Status.OK, value, float("nan"))
    steps = scores.per_step
    if bool(failed.any()):
        value = torch.where(failed, bounds[0], value)
        if steps is not None:
            steps = torch.where(failed[:, None], floor_of_steps(bounds[0], steps.shape[1]), steps)
    return Scores(value, status, scores.confidence, steps, dict(scores.parts), info)


def floor_of_steps(floor: float, steps: int) -> float:
    """The credit of each step of a malformed output whose value is `floor`.

    Of some rewards the credits of steps add up to the value, of others each is on the value's own scale. The lesser of
    floor / steps and floor lies below every well-formed row in both readings, so that it is never an advantage.
    """
    return min(floor, floor / max(steps, 1))


def _shapes(scores: Any, rows: int, name: str) -> None:
    if not isinstance(scores, Scores):
        raise ScoreError(f"reward '{name}' returned {type(scores).__name__}; return Scores.")
    fields: dict[str, Tensor | None] = {"value": scores.value, "status": scores.status, "confidence": scores.confidence}
    fields |= {f"parts[{key}]": part for key, part in scores.parts.items()}
    for field, tensor in (fields | {"per_step": scores.per_step}).items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ScoreError(f"reward '{name}' returned {field} as {type(tensor).__name__}; return a tensor.")
        if tensor is not None and tensor.is_complex():
            raise ScoreError(f"reward '{name}' returned {field} of complex numbers ({tensor.dtype}); return real ones.")
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


def inside(value: float, bounds: tuple[float, float]) -> bool:
    """Is `value` within `bounds`, but for rounding?"""
    low, high = bounds
    size = high - low if math.isfinite(high - low) else max((abs(b) for b in bounds if math.isfinite(b)), default=0.0)
    slack = _SLACK * max(size, 1e-6)
    return low - slack <= value <= high + slack


def _faults(scores: Scores, value: Tensor, bounds: tuple[float, float]) -> list[str]:
    """What is wrong with each row's numbers if it is to be OK, "" of most."""
    faults = [""] * len(value)
    steps, sure = scores.per_step, scores.confidence
    if sure is not None:
        for row in (~((sure >= -_SLACK) & (sure <= 1 + _SLACK))).nonzero().flatten().tolist():
            faults[row] = f"the confidence is {float(sure[row]):g}, not in [0, 1]"
    if steps is not None:
        for row in (~steps.detach().isfinite()).flatten(1).any(1).nonzero().flatten().tolist():
            faults[row] = "the credit of a step is not finite"
    outside = ~torch.tensor([inside(number, bounds) for number in value.tolist()], dtype=torch.bool)
    for row in outside.nonzero().flatten().tolist():
        faults[row] = f"the value {float(value[row]):g} is outside the declared range {bounds}"
    for row in (~value.isfinite()).nonzero().flatten().tolist():
        faults[row] = f"the value is {float(value[row])}"
    return faults
