"""What every reward owes, and how the scores of parts of a batch become those of the whole.

A reward owes one finite value per row, NaN where there is none, and the floor for a malformed output: see
`enforce_contract`. A row on which it raises must not take its batch with it: `bisect_failures` finds it by halving.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from mmalign.core.errors import (
    CapabilityError,
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtra,
    PackageError,
    ScoreError,
)
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores, Status

T = TypeVar("T")
_SLACK = 1e-4  # of the range's size: rounding may step over a declared bound


def enforce_contract(returned: object, rows: int, bounds: tuple[float, float], name: str) -> Scores:
    """The scores that were `returned`, made to hold the contract.

    Values of rows without a score become NaN; PARSE_FAIL rows get the floor, their steps what `floor_of_steps` says; an
    OK row whose value, credit of a step or confidence is NaN or infinite, or whose value is outside the declared range,
    becomes an ERROR that says so.

    Raises:
        ScoreError: the reward's code is wrong whatever the row: not `Scores`, not one real value and status per row, an
            unknown status, or PARSE_FAIL with no finite floor.
    """
    scores = _require_shapes(returned, rows, name)
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
            text if bad else reason for text, bad, reason in zip(why, broken.tolist(), info or [""] * rows, strict=True)
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


def _require_shapes(scores: object, rows: int, name: str) -> Scores:
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
            shape = tuple(tensor.shape)
            raise ScoreError(f"reward '{name}' returned {field} of shape {shape} for {rows} rows; return ({rows},).")
    for field, item in (("per_step", scores.per_step), ("info", scores.info)):
        if item is not None and len(item) != rows:
            raise ScoreError(f"reward '{name}' returned {len(item)} entries of {field} for {rows} rows.")
    if unknown := set(scores.status.tolist()) - set(Status):
        known = ", ".join(f"{s.value} ({s.label})" for s in Status)
        raise ScoreError(f"reward '{name}' returned status {sorted(unknown)[0]}; known: {known}.")
    return scores


def joined_info(scores: Mapping[str, Scores]) -> list[str] | None:
    """Return what several rewards say of each of the same B rows, by their names; None where none says anything."""
    reasons = [
        "; ".join(f"{name}: {own.info[row]}" for name, own in scores.items() if own.info and own.info[row])
        for row in range(len(next(iter(scores.values()))))
    ]
    return reasons if any(reasons) else None


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


_EMPTY_PROMPT = "the prompt is empty"


def is_empty(prompt: Prompt) -> bool:
    """Does it say nothing?"""
    return not prompt.text.strip()


def mask_empty_prompts(scores: Scores, prompts: Sequence[Prompt]) -> Scores:
    """Scores of B rows, those whose prompt is empty or blank NOT_APPLICABLE; gradient of the others is untouched."""
    empty = [is_empty(prompt) for prompt in prompts]
    if not any(empty):
        return scores
    gone = torch.tensor(empty, device=scores.status.device) & (scores.status == int(Status.OK))
    reasons = zip(scores.info or [""] * len(scores), gone.tolist(), strict=True)
    return replace(
        scores,
        value=scores.value.masked_fill(gone, float("nan")),
        status=scores.status.masked_fill(gone, int(Status.NOT_APPLICABLE)),
        info=[_EMPTY_PROMPT if none else info for info, none in reasons],
    )


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


def merge_at(pieces: Sequence[tuple[Tensor, Scores]], rows: int, device: torch.device | str) -> Scores:
    """Pieces that belong at given row numbers (together every row once), put in row order."""
    whole = merge([scores for _, scores in pieces], device)
    return whole[torch.argsort(torch.cat([index for index, _ in pieces]))] if rows else whole


def _part(piece: Scores, name: str) -> Tensor:
    return piece.parts[name] if name in piece.parts else torch.full_like(piece.value, float("nan"))


def _joined(pieces: Sequence[Scores], field: Callable[[Scores], Tensor | None], fill: float) -> Tensor | None:
    if all(field(p) is None for p in pieces):
        return None
    values = [field(p) for p in pieces]
    return torch.cat([torch.full_like(p.value, fill) if v is None else v for p, v in zip(pieces, values, strict=True)])


def _steps(piece: Scores, steps: int) -> Tensor:
    if piece.per_step is None:
        return piece.value.new_zeros(len(piece), steps)
    return torch.nn.functional.pad(piece.per_step, (0, steps - piece.per_step.shape[1]))


#: Faults of the set-up, the same for every row: they end the run with their own message.
NOT_ABOUT_A_ROW = (CapabilityError, CheckpointError, ConfigError, DataError, MissingExtra, PackageError, ScoreError)
#: What a reward's own code raises for a row: also `sys.exit`, which is not for a reward to decide.
OF_A_ROW = (Exception, SystemExit)


@dataclass
class _Budget:
    calls: int


def bisect_failures(score: Callable[[Rollout], Scores], rollout: Rollout, split: bool = True) -> list[Scores]:
    """`score(rollout)` in pieces: whole if it succeeds, else halves, until single rows fail and become ERROR.

    `info` says what was raised and where. Without `split` a failing batch is marked at once.
    """
    return bisect_calls(score, rollout, lambda rows, why: without_value(rows, Status.ERROR, why), split)


def bisect_calls(
    call: Callable[[Rollout], T], rollout: Rollout, failed: Callable[[int, str], T], split: bool = True
) -> list[T]:
    """`call(rollout)` in pieces, where those that raise are `failed(rows, why)`; see `bisect_failures`.

    What fails on everything is not called once per row: after 4 + 4 log2(B) extra calls a failing piece is marked at
    once.
    """
    budget = _Budget(4 + 4 * math.ceil(math.log2(max(len(rollout), 2))) if split else 0)
    return _halved(call, rollout, failed, budget)


def _halved(
    call: Callable[[Rollout], T], rollout: Rollout, failed: Callable[[int, str], T], budget: _Budget
) -> list[T]:
    try:
        return [call(rollout)]
    except NOT_ABOUT_A_ROW:
        raise
    except ImportError as error:
        raise ScoreError(f"a package that the reward uses cannot be imported: {describe_error(error)}.") from error
    except OF_A_ROW as error:
        # The frames hold the failed graph's tensors; only the text is kept, and the graph goes before the next try.
        why = describe_error(error)
    if len(rollout) == 1 or budget.calls <= 0:
        return [failed(len(rollout), why)]
    budget.calls -= 2
    middle = (len(rollout) + 1) // 2
    halves = (rollout[:middle], rollout[middle:])
    return [piece for half in halves for piece in _halved(call, half, failed, budget)]


def describe_error(error: BaseException) -> str:
    """One line: what was raised, with which words, in which file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        words = words.split(". ")[0]
    return f"{type(error).__name__}: {words}{place}" if words else f"{type(error).__name__}{place}"
