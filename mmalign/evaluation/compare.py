"""Two runs on the same prompts: who wins how often, by how much, and whether chance explains it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.core.errors import DataError
from mmalign.evaluation.bootstrap import prompt_means
from mmalign.evaluation.folders import evaluation_folders, run_above
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.run_record import read_numbers
from mmalign.evaluation.table import SummaryRow, common_rewards, number_text, summarize

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "compare", "compare_runs", "comparison_json", "comparison_table", "unlike_measures"]


UNMEASURED = {"weight", "monitor", "role"}  # options that do not change a reward's number


@dataclass(frozen=True)
class Comparison:
    """One reward's verdict on B against A, prompt by prompt (repeats of a prompt are averaged first).

    `delta` and `ci` (95 %, paired bootstrap) are b - a. `wins`, `losses`, `ties` count prompts from B's side;
    `win_rate` is `SummaryRow`'s. `p` is the two-sided sign test over prompts without a tie (Dixon and Mood 1946), NaN
    for a set reward, where there is one set and no prompts.
    """

    name: str
    a: float
    b: float
    delta: float
    ci: tuple[float, float]
    wins: int
    losses: int
    ties: int
    win_rate: float
    p: float
    n: int


def compare(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """B against A for every reward both have.

    Raises:
        DataError: they were not evaluated on the same prompts.
    """
    rows = {row.name: row for row in summarize(a, b, {})}
    return [_verdict(a, b, rows[name]) for name in common_rewards(a, b)]


def _verdict(a: Evaluation, b: Evaluation, row: SummaryRow) -> Comparison:
    shared = (row.name, row.before, row.after, row.delta, row.ci)
    if row.name in a.sets:
        return Comparison(*shared, 0, 0, 0, row.win_rate, float("nan"), row.n)
    difference = prompt_means(b.values(row.name) - a.values(row.name), b.group)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    ties = len(difference) - wins - losses
    return Comparison(*shared, wins, losses, ties, row.win_rate, sign_test(wins, losses), row.n)


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided probability of a split at least this uneven if both sides were equally good."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5))) if wins + losses else 1.0


def compare_runs(a: Path | str, b: Path | str) -> tuple[list[Comparison], tuple[Path, Path]]:
    """B's evaluation against A's, and the two folders that were compared; each a run directory or an evaluation's own.

    The runs' own final evaluations are taken where they asked the same prompts, else the newest pair that did of those
    that `mmalign evaluate` made later.

    Raises:
        DataError: a directory without an evaluation, or no two of the same prompts.
    """
    ours, theirs = (
        [(folder, Evaluation.load(folder, outputs=False)) for folder in evaluation_folders(Path(run))] for run in (a, b)
    )
    questions = [[prompt.question for prompt in evaluation.prompts] for _, evaluation in theirs]
    for folder, evaluation in ours:
        texts = [prompt.question for prompt in evaluation.prompts]
        if texts in questions:
            other, same = theirs[questions.index(texts)]
            return compare(evaluation, same), (folder, other)
    raise DataError(
        f"{a} and {b}: no two of their evaluations ({len(ours)} and {len(theirs)}) asked the same prompts. Run "
        "`mmalign evaluate DIR --prompts FILE` on both with one file, then compare them again."
    )


def unlike_measures(names: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Those of `names` that are no single measure: an option that both run files state differs between them.

    An option that one alone states is a later release's, whose default is what was before.
    """
    first, second = _measures(one), _measures(other)
    both = [name for name in names if name in first and name in second]
    return [
        name
        for name in both
        if any(first[name][key] != second[name][key] for key in first[name].keys() & second[name].keys() - UNMEASURED)
    ]


def _measures(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Rewards and judges of a run file, by name."""
    return {**((run.get("evaluation") or {}).get("judges") or {}), **(run.get("rewards") or {})}


def comparison_json(comparisons: list[Comparison], folders: tuple[Path, Path]) -> str:
    """{"compared": [folder, folder], "unlike": [names], "rows": [...]}; a number that does not exist is null."""
    first, second = (read_numbers(run).run if (run := run_above(folder)) else {} for folder in folders)
    unlike = unlike_measures([one.name for one in comparisons], first, second)
    rows = [{name: _nullable(value) for name, value in asdict(row).items()} for row in comparisons]
    return json.dumps({"compared": [str(folder) for folder in folders], "unlike": unlike, "rows": rows}, indent=1)


def _nullable(value: object) -> object:
    if isinstance(value, tuple):
        return [_nullable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def comparison_table(comparisons: list[Comparison], names: tuple[str, str]) -> Table:
    """Return a rich table of B (`names[1]`) against A (`names[0]`)."""
    from rich.table import Table

    table = Table(title=f"{names[1]} against {names[0]}", title_justify="left", header_style="bold")
    table.add_column("reward", overflow="fold")  # nothing is cut at 80 columns
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for column in ("difference\n95 % interval", "wins / ties\n/ losses", "win\nrate", "sign\ntest p"):
        table.add_column(column, justify="right", no_wrap=True)
    for c in comparisons:
        low, high = (number_text(v, signed=True) for v in c.ci)
        counts = f"{c.wins} / {c.ties} / {c.losses}" if c.wins + c.ties + c.losses else "set"
        means = (number_text(c.a), number_text(c.b), f"{number_text(c.delta, signed=True)}\n{low} to {high}")
        table.add_row(c.name, *means, counts, f"{c.win_rate:.0%}", f"{c.p:.2g}" if c.p == c.p else "–")
    return table
