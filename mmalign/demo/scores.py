"""What every reward says of both sides, as a table of texts; where there is no number stands why."""

from __future__ import annotations

from collections.abc import Mapping

from mmalign.core.types import Scores, Status
from mmalign.demo.asking import Side
from mmalign.evaluation.table import Role, number

__all__ = ["table"]

WORDS = {
    Status.NOT_APPLICABLE: "does not apply",
    Status.PARSE_FAIL: "unreadable",
    Status.ERROR: "failed",
    Status.TIMEOUT: "took too long",
}


def table(before: Side, after: Side, roles: Mapping[str, Role]) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row per reward: its name and role, both sides, and start → learned of each of several outputs.

    A side is the mean of its outputs; for the reward of a set its value (each output then has its share in it).
    """
    count = len(after.rollout)
    mean = " (mean)" if count > 1 else ""
    headers = ["reward", "role", f"start{mean}", f"learned{mean}"]
    headers += [f"output {row + 1}" for row in range(count)] if count > 1 else []
    rows = []
    for name, two in after.verdicts.items():
        one = before.verdicts[name]
        each = [f"{_row(one, row)} → {_row(two, row)}" for row in range(count)] if count > 1 else []
        rows.append([name, roles.get(name, "judge"), _whole(one), _whole(two), *each])
    return headers, rows


def _whole(verdict: Scores | str) -> str:
    if isinstance(verdict, str):
        return verdict
    valid = verdict.valid
    if not valid.any():
        why = next(filter(None, verdict.info or []), "")
        if not why and "set" in verdict.parts:
            why = "a set has at least 3 outputs"
        return _row(verdict, 0) + (f": {why}" if why else "")
    if "set" in verdict.parts:
        return number(verdict.parts["set"][valid][0].item())
    if len(valid) == 1:
        return _row(verdict, 0)
    return number(verdict.value[valid].mean().item())


def _row(verdict: Scores | str, row: int) -> str:
    if isinstance(verdict, str):
        return "–"
    status = Status(int(verdict.status[row]))
    if not verdict.valid[row]:
        return WORDS[status]
    value = number(verdict.value[row].item())
    return value if status is Status.OK else f"{value} ({WORDS[status]})"
