"""What every reward says of both sides, as a table of texts; why there is no number is said below it."""

from __future__ import annotations

from collections.abc import Mapping

from mmalign.core.types import Scores, Status
from mmalign.demo.answers import Side
from mmalign.evaluation.table import Role, number_text

__all__ = ["score_of_side", "table", "why_none"]

WORDS = {
    Status.NOT_APPLICABLE: "does not apply",
    Status.PARSE_FAIL: "unreadable",
    Status.ERROR: "failed",
    Status.TIMEOUT: "took too long",
}


def table(before: Side, after: Side, roles: Mapping[str, Role]) -> tuple[list[str], list[list[str]], list[str]]:
    """Headers, a row per reward, and sentences on what has no number.

    A row has the reward's name and role, both sides, and start → learned of each of several outputs. A side is the mean
    of its outputs; for the reward of a set, whose name then says so, its value (each output has its share in it).
    """
    count = len(after.rollout)
    mean = " (mean)" if count > 1 else ""
    headers = ["reward", "role", f"start{mean}", f"learned{mean}"]
    headers += [f"output {row + 1}" for row in range(count)] if count > 1 else []
    rows, reasons = [], []
    for name, two in after.verdicts.items():
        one = before.verdicts[name]
        each = [f"{_row(one, row)} → {_row(two, row)}" for row in range(count)] if count > 1 else []
        shown = f"{name} (of the set)" if count > 1 and (_of_set(one) or _of_set(two)) else name
        rows.append([shown, roles.get(name, "judge"), score_of_side(one), score_of_side(two), *each])
        reasons += [f"{name}: {why}" for why in dict.fromkeys(filter(None, (why_none(one), why_none(two))))]
    return headers, rows, reasons


def _of_set(verdict: Scores | str) -> bool:
    return not isinstance(verdict, str) and "set" in verdict.parts


def why_none(verdict: Scores | str) -> str:
    """Why no output at all has a number."""
    if isinstance(verdict, str):
        return verdict
    if verdict.valid.any():
        return ""
    return next(filter(None, verdict.info or []), "") or ("a set has at least 3 outputs." if _of_set(verdict) else "")


def score_of_side(verdict: Scores | str) -> str:
    """The number of all outputs of a side, or the word for why there is none."""
    if isinstance(verdict, str) or not verdict.valid.any():
        return _row(verdict, 0)
    valid = verdict.valid
    if "set" in verdict.parts:
        return number_text(verdict.parts["set"][valid][0].item())
    if len(valid) == 1:
        return _row(verdict, 0)
    return number_text(verdict.value[valid].mean().item())


def _row(verdict: Scores | str, row: int) -> str:
    if isinstance(verdict, str):
        return "–"
    status = Status(int(verdict.status[row]))
    if not verdict.valid[row]:
        return WORDS[status]
    value = number_text(verdict.value[row].item())
    return value if status is Status.OK else f"{value} ({WORDS[status]})"
