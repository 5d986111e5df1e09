"""A run in the terminal while it goes: how far it is, curves as sparklines, the last samples' scores, alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmalign.core.errors import MmalignError
from mmalign.evaluation.progress import Progress, in_words, progress_of
from mmalign.evaluation.run_record import RunRecord
from mmalign.evaluation.table import number_text

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["sample_scores", "sparkline", "view", "watched_curves"]

BARS = "▁▂▃▄▅▆▇█"
BAR, WIDTH, MOST_CURVES, MOST_SAMPLES, MOST_ALARMS = 60, 32, 12, 4, 5
#: Metrics that are shown after the rewards and their evaluations, where a run has them.
OTHERS = ("kl/reference", "kl/velocity", "kl/old", "grad/norm", "loss")


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Values as a row of at most `width` bars between the lowest and the highest; neighbours are averaged.

    A constant row is a row of the lowest bar; values that are no numbers are blanks.
    """
    count = min(width, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    known = [[v for v in part if math.isfinite(v)] for part in parts]
    means = [sum(part) / len(part) if part else math.nan for part in known]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    bars = [int((m - low) / span * (len(BARS) - 1) + 0.5) if span and math.isfinite(m) else 0 for m in means]
    return "".join(BARS[bar] if math.isfinite(mean) else " " for bar, mean in zip(bars, means, strict=True))


def watched_curves(record: RunRecord) -> list[tuple[str, list[tuple[float, float]]]]:
    """The curves that are shown: each reward of training, each evaluation, then `OTHERS`; at most `MOST_CURVES`."""
    names = record.metric_names()
    wanted = [
        name for first in ("reward", "eval") for name in names if name.split("/")[0] == first and name.count("/") == 1
    ]
    wanted += [name for name in OTHERS if name in names]
    return [(name, record.curve(name)) for name in wanted[:MOST_CURVES]]


def sample_scores(record: RunRecord) -> tuple[int, list[str], list[tuple[str, list[str]]]]:
    """The newest samples: their step, the names of rewards, and prompt and scores of the first rows.

    (0, [], []) where there are none, or where they cannot be read.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    for folder in reversed(record.samples):
        try:
            with ParquetFile(folder / "rows.parquet") as file:
                table: dict[str, list[Any]] = file.read().slice(0, MOST_SAMPLES).to_pydict()
        except (OSError, ArrowException, MmalignError):
            continue
        names = [name for name in table if f"{name}/status" in table]
        rows = [
            (str(prompt), [_score(table[name][i], table[f"{name}/status"][i]) for name in names])
            for i, prompt in enumerate(table.get("prompt", []))
        ]
        digits = folder.name.removeprefix("step_")
        return int(digits) if digits.isdigit() else 0, names, rows
    return 0, [], []


def _score(value: float | None, status: str) -> str:
    return str(status).replace("_", " ") if value is None else number_text(value)


def view(record: RunRecord) -> Group:
    """Everything above, as what rich prints."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    progress = progress_of(record)
    shown: list[Any] = [Text(record.name, style="bold"), Text(_head(progress))]
    if progress.steps and progress.state != "finished":
        done = round(BAR * min(1.0, progress.step / progress.steps))
        shown.append(Text("━" * done + "┄" * (BAR - done), style="cyan"))
    curves = watched_curves(record)
    shown += (
        [Rule("curves", align="left", style="dim"), _curves(curves)] if curves else [Text("No step is written yet.")]
    )
    step, names, rows = sample_scores(record)
    if rows:
        shown += [Rule(f"samples of step {step}", align="left", style="dim"), _samples(names, rows)]
    if record.alarms:
        shown.append(Rule("alarms", align="left", style="dim"))
        more = len(record.alarms) - MOST_ALARMS
        shown += [Text(f"{more} earlier ones are in alarms.jsonl")] if more > 0 else []
        shown += [
            Text(f"step {alarm['step']}: {alarm['text']}", style="yellow") for alarm in record.alarms[-MOST_ALARMS:]
        ]
    return Group(*shown)


def _head(progress: Progress) -> str:
    each = f" {in_words(progress.step_seconds)} a step." if progress.step_seconds is not None else ""
    return progress.sentence + each


def _curves(curves: Sequence[tuple[str, list[tuple[float, float]]]]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("metric", overflow="fold")
    table.add_column("", no_wrap=True)
    for name in ("first", "last"):
        table.add_column(name, justify="right")
    for name, points in curves:
        values = [value for _, value in points]
        if values:
            table.add_row(name, sparkline(values), number_text(values[0]), number_text(values[-1]))
    return table


def _samples(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("prompt", overflow="ellipsis", no_wrap=True, max_width=44)
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for prompt, scores in rows:
        table.add_row(escape(prompt.replace("\n", " ")), *scores)
    return table
