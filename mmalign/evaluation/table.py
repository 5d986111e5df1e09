"""Before and after as one row per reward: `summary.json` for programs, a table for people."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mmalign.core.errors import DataError
from mmalign.core.files import write_beside
from mmalign.evaluation.bootstrap import Interval, centred_interval, paired_interval, prompt_means, win_rate
from mmalign.evaluation.records import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Role",
    "SummaryRow",
    "common_rewards",
    "evaluation_table",
    "read_seconds",
    "read_summary",
    "roles_of",
    "same_noise",
    "summarize",
    "summary_table",
    "write_summary",
]

Role = Literal["trained", "judge", "verifier"]
log = logging.getLogger("mmalign")


@dataclass(frozen=True)
class SummaryRow:
    """One reward before and after training; `delta` and `ci` (95 %, paired bootstrap over prompts) are after - before.

    `before` and `after` are means over the `n` rows that have a score in both, so that they differ by `delta`; for a
    set reward they are its two values. `win_rate` is the share of prompts that got better, a tie being half a win;
    for a set reward the share of resamples of the prompts. NaN (null in JSON) where no row has both.
    """

    name: str
    role: Role
    before: float
    after: float
    delta: float
    ci: tuple[float, float]
    n: int
    win_rate: float = math.nan


def roles_of(run: Mapping[str, Any]) -> dict[str, Role]:
    """Roles by reward, from a run file as plain data: its rewards are trained on, judges are judges or say `role:`."""
    trained: dict[str, Role] = {
        name: "judge" if spec.get("monitor") else "trained" for name, spec in (run.get("rewards") or {}).items()
    }
    judges = ((run.get("evaluation") or {}).get("judges") or {}).items()
    return trained | {name: spec.get("role", "judge") for name, spec in judges}


def summarize(before: Evaluation, after: Evaluation, roles: Mapping[str, Role]) -> list[SummaryRow]:
    """One row per reward, in the order of roles: trained, judge, verifier; a reward without a role is a judge.

    Raises:
        DataError: the two were not made from the same prompts.
    """
    order = get_args(Role)
    rows = [_row(before, after, name, roles.get(name, "judge")) for name in common_rewards(before, after)]
    return sorted(rows, key=lambda row: order.index(row.role))


def common_rewards(before: Evaluation, after: Evaluation) -> list[str]:
    """Rewards in both, after a check that rows pair up; rewards in one only are logged, other noise too."""
    questions = [[p.question for p in side.prompts] for side in (before, after)]
    if questions[0] != questions[1]:
        a, b = before.prompts, after.prompts
        i = next((i for i, (p, q) in enumerate(zip(*questions, strict=False)) if p != q), min(len(a), len(b)))
        seen = [repr(side[i].shown) if i < len(side) else "nothing" for side in (a, b)]
        raise DataError(
            f"the evaluations have different prompts: {len(a)} and {len(b)} rows, row {i} is {seen[0]} and {seen[1]}; "
            "evaluate both on the same file with the same count and repeats."
        )
    names = [name for name in before.names() if name in after.names()]
    if alone := sorted(set(before.names()) ^ set(after.names())):
        log.warning("scored in only one of the evaluations, left out: %s", ", ".join(alone))
    if not same_noise(before, after):
        log.warning("the evaluations drew different noise (seed, repeats or version differ): intervals will be wider.")
    return names


def same_noise(one: Evaluation, other: Evaluation) -> bool:
    """Did both draw the same noise for the same prompts?"""
    noise = [(each.seed, each.repeats, each.extra.get("noise", ("by chunk", each.rows))) for each in (one, other)]
    return bool(noise[0] == noise[1])


def _row(before: Evaluation, after: Evaluation, name: str, role: Role) -> SummaryRow:
    if name in before.sets:
        one, two = before.sets[name], after.sets[name]
        moved = (two.resampled - one.resampled).astype(np.float64)
        delta = centred_interval(two.value - one.value, moved, two.n)
        wins = win_rate(one.resampled, two.resampled)
        return SummaryRow(name, role, one.value, two.value, delta.value, (delta.low, delta.high), delta.n, wins)
    one_row, two_row = before.values(name), after.values(name)
    delta = paired_interval(one_row, two_row, after.group)
    both = ~np.isnan(one_row + two_row)
    means = [float(side[both].mean()) if both.any() else math.nan for side in (one_row, two_row)]
    moved = prompt_means(two_row - one_row, after.group)
    return SummaryRow(
        name, role, means[0], means[1], delta.value, (delta.low, delta.high), delta.n, win_rate(0 * moved, moved)
    )


def write_summary(rows: Sequence[SummaryRow], path: Path | str, seconds: float, report: str) -> None:
    """Write `summary.json`: {"rows": [...], "seconds": x, "report": path}; a number that does not exist is null."""
    plain = [{**asdict(row), "ci": list(row.ci)} for row in rows]
    text = json.dumps({"rows": _nullable(plain), "seconds": round(seconds, 3), "report": report}, indent=2)
    with write_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def _nullable(value: object) -> Any:
    if isinstance(value, list):
        return [_nullable(v) for v in value]
    if isinstance(value, dict):
        return {k: _nullable(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_summary(path: Path | str) -> list[SummaryRow]:
    """Return the rows of a `summary.json`; DataError if it is not one."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
        return [SummaryRow(**{k: _known(k, v) for k, v in row.items()}) for row in rows]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a summary: {error!r}.") from None


def read_seconds(path: Path | str) -> float | None:
    """How long the run of a `summary.json` took; None where nothing there says so."""
    try:
        seconds = json.loads(Path(path).read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def _known(key: str, value: Any) -> Any:
    if key == "ci":
        return tuple(math.nan if v is None else v for v in value)
    return math.nan if value is None and key in ("before", "after", "delta", "win_rate") else value


def summary_table(rows: Sequence[SummaryRow], title: str = "Held-out prompts") -> Table:
    """Return a rich table; a delta is green where its interval lies above 0, red where below."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(title)}, before and after", title_justify="left", header_style="bold")
    for column in ("reward", "role"):
        table.add_column(column)
    for column in ("before", "after", "change", "95 % interval", "n"):
        table.add_column(column, justify="right")
    for row in rows:
        style = "green" if row.ci[0] > 0 else "red" if row.ci[1] < 0 else ""
        low, high = (number_text(v, signed=True) for v in row.ci)
        change = f"[{style}]{number_text(row.delta, signed=True)}[/]" if style else number_text(row.delta, signed=True)
        cells = (
            escape(row.name),
            row.role,
            number_text(row.before),
            number_text(row.after),
            change,
            f"{low} to {high}",
            str(row.n),
        )
        table.add_row(*cells)
    return table


def evaluation_table(evaluation: Evaluation, title: str = "Held-out prompts") -> Table:
    """One policy's rewards with their intervals and the rows that have no score."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", header_style="bold")
    table.add_column("reward")
    for column in ("value", "95 % interval", "n", "no score"):
        table.add_column(column, justify="right")
    for name in evaluation.names():
        interval: Interval = evaluation.interval(name)
        missing = evaluation.invalid(name)
        span = f"{number_text(interval.low)} to {number_text(interval.high)}"
        table.add_row(
            escape(name), number_text(interval.value), span, str(interval.n), f"[red]{missing}[/]" if missing else "0"
        )
    return table


def number_text(value: float, signed: bool = False) -> str:
    """Return a number for people: about four digits, a real minus sign, "–" where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    text = f"{size:.1f}" if size >= 1000 else f"{size:.3g}" if size and size < 1e-3 else f"{size:.3f}"
    if size >= 10 and size < 1000:
        text = f"{size:.2f}"
    zero = float(text) == 0
    return ("" if zero else "−" if value < 0 else "+" if signed else "") + text
