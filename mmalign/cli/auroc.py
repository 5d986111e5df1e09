"""`mmalign auroc`: how well any reward tells two sets of outputs apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `auroc`."""
    app.command("auroc")(auroc)


def auroc(
    ours: Annotated[
        Path, typer.Argument(metavar="ROWS.jsonl|DIR", help="rows as `mmalign score` reads them; those to be found")
    ],
    theirs: Annotated[Path, typer.Argument(metavar="ROWS.jsonl|DIR", help="the rows to tell them from")],
    reward: Annotated[str, typer.Option(help="a name from `mmalign list rewards`")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of the reward")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="rows per call")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Measure the probability that a reward scores one of the first rows above one of the second; a tie is half.

    Outputs of a tuned model against those of people, or of its start (ReMoDetect): above 0.5 where the reward likes the
    first better. Rows without a score are left out, and counted. Exit code: 0, 2 if a side has no score at all.
    """
    starting(f"checking what '{reward}' is to score")
    from mmalign.core.config import override
    from mmalign.core.errors import CapabilityError, ConfigError, DataError
    from mmalign.core.protocols import SetReward
    from mmalign.evaluation.rankings import auc_interval
    from mmalign.rewards import Guarded, load_reward
    from mmalign.run.rows import read_output_rows
    from mmalign.run.score import score_rows

    named = override({}, options or [])
    if "name" in named:
        raise ConfigError("--set name=…: the reward is named by --reward.")
    judge: Any = load_reward(reward, allow or (), **named)
    if isinstance(judge, SetReward):
        raise CapabilityError(f"reward '{reward}' judges sets; rows are told apart by a reward of single rows.")
    tables = [read_output_rows(rows) for rows in (ours, theirs)]
    judge = Guarded(reward, judge, monitor=True)
    sides = []
    for rows, table in zip((ours, theirs), tables, strict=True):
        lines = score_rows(table, judge, rows if rows.is_dir() else rows.parent, batch, name=reward)
        sides.append([math.nan if line["value"] is None else float(line["value"]) for line in lines])
        if all(map(math.isnan, sides[-1])):
            why = next((line["info"] for line in lines if "info" in line), lines[0]["status"])
            raise DataError(f"{rows}: none of {len(lines)} rows has a score; the first says: {why}")
        if lost := sum(map(math.isnan, sides[-1])):
            typer.echo(f"note: {rows}: {lost} of {len(lines)} rows have no score and are left out", err=True)
    value, low, high, count = auc_interval(sides[0], sides[1])
    if as_json:
        typer.echo(json.dumps({"auroc": value, "low": low, "high": high, "n": count}))
    else:
        typer.echo(f"AUROC {value:.3f}, 95 % interval {low:.3f} to {high:.3f}, of {count} rows")
