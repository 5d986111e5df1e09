"""`mmalign judge`: how well any reward ranks outputs whose worth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `judge`."""
    app.command("judge")(judge_command)


def judge_command(
    rows: Annotated[
        str, typer.Argument(metavar="ROWS", help="rows of prompt, chosen and rejected, or a reward benchmark's file")
    ],
    reward: Annotated[str, typer.Option(help="a name from `mmalign list rewards`, a run file or a run directory")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of the reward")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME=COLUMN", help="what a column of the file is")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="rows read; 0: all")] = 0,
    out: Annotated[Path | None, typer.Option(help="keep every row's scores here, as an evaluation")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Measure a reward as reward benchmarks do: accuracy, best of N, ties, macro mean, MRR, nDCG, with intervals.

    Rows may say more: `near` prompts (C_ins), samples that count whole (ACC+), contexts that turn a preference round.
    """
    starting(f"checking what '{reward}' is to judge")
    from mmalign.core.config import override
    from mmalign.core.errors import ConfigError
    from mmalign.run.judge import judge_reward, measured, read_comparisons, reward_of

    named = override({}, options or [])
    if "name" in named:
        raise ConfigError("--set name=…: the reward is named by --reward.")
    renamed = dict(each.partition("=")[::2] for each in columns or [])
    made = reward_of(reward, named, allow or ())
    evaluation = judge_reward(reward, made, read_comparisons(rows, renamed, limit))
    if out is not None:
        evaluation.save(out)
    figures = measured(evaluation)
    if as_json:
        typer.echo(json.dumps(figures, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", "95 % interval", "rows", box=None)
    for name, of in figures.items():
        table.add_row(name, f"{of['value']:.3f}", f"{of['low']:.3f} to {of['high']:.3f}", str(of["n"]))
    Console().print(table)
