"""`mmalign frontier`: a run's reward at its KL, beside best of n and the tilted policies."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `frontier`."""
    app.command("frontier")(frontier_command)


def frontier_command(
    run: Annotated[str, typer.Argument(metavar="DIR", help="a run directory; DIR@STEP, DIR@best: another checkpoint")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]…")] = None,
    samples: Annotated[int, typer.Option(min=2, help="outputs of the start for each prompt")] = 32,
    prompts: Annotated[int, typer.Option(min=1, help="held-out prompts")] = 64,
    reward: Annotated[str, typer.Option(help="the run's reward by which samples are chosen; all it trains on")] = "",
    measure: Annotated[
        str, typer.Option(help="the run's reward or judge that is told of them; the reward itself")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Measure how near a run comes to the best policy of its KL, and to best of n of its start."""
    starting("checking what is to be measured")
    from mmalign.cli._progress import progress
    from mmalign.run.frontier import frontier

    with progress("sampling", "sampled") as advance:
        measured = frontier(run, samples, prompts, reward, measure, changes or (), allow or (), advance)
    if as_json:
        figures = asdict(measured) | {"efficiency": measured.efficiency}
        figures |= {name: getattr(measured, name)._asdict() for name in ("start", "kl", "value")}
        typer.echo(json.dumps(_finite(figures), indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("policy", "KL (nats)", measured.measure, "best at that KL", box=None)
    for point in measured.curve:
        table.add_row(f"best of {point.n}", f"{point.kl:.3f}", f"{point.value:.4f}", f"{point.tilted:.4f}")
    own = f"{measured.value.value:.4f} ({measured.value.low:.4f} to {measured.value.high:.4f})"
    table.add_row("the run", f"{measured.kl.value:.3f}", own, f"{measured.tilted:.4f}")
    Console().print(table)
    typer.echo(
        f"\n{measured.prompts} prompts, {measured.samples} samples each, chosen by {measured.reward}; the run gains "
        f"{measured.efficiency:.0%} of what is possible at its KL"
    )
    if measured.kl.value > measured.limit:
        typer.echo(
            f"note: {measured.samples} samples tell the best policy up to a KL of {measured.limit:.2f} only", err=True
        )
    if measured.left_out:
        typer.echo(f"note: {measured.left_out} prompts are left out: an output of theirs has no score", err=True)


def _finite(value: Any) -> Any:
    """Numbers that are none, or infinite, as null."""
    if isinstance(value, dict):
        return {name: _finite(own) for name, own in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
