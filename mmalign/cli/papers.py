"""`mmalign papers`: the papers that the project began with, and what of each runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add `papers`."""
    app.command("papers")(papers)


def papers(
    number: Annotated[int, typer.Argument(help="one paper, 1 to 46, or nothing for all", show_default=False)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the 46 founding papers with their state; of one, its commands, evidence and deviations."""
    import json

    from mmalign.core.errors import ConfigError
    from mmalign.papers import founding_papers

    every = founding_papers()
    chosen = [paper for paper in every if number in (0, paper.number)]
    if not chosen:
        raise ConfigError(f"no paper has the number {number}; they go from 1 to {every[-1].number}.")
    if as_json:
        entries: Any = [paper.to_dict() for paper in chosen]
        typer.echo(json.dumps(entries[0] if number else entries, indent=1, ensure_ascii=False))
    elif number:
        _print_one(chosen[0])
    else:
        _print_all(every)


def _print_all(every: list[Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("#", "paper", "state", "shown by", "command", box=None)
    for paper in every:
        command = paper.commands[0] if paper.commands else ""
        table.add_row(str(paper.number), escape(paper.title), paper.state, paper.shown_by, escape(command))
    Console().print(table)
    states = [paper.state for paper in every]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("works", "partly", "missing"))
    typer.echo(f"{len(every)} papers: {counts}")


def _print_one(paper: Any) -> None:
    arxiv = f" (arXiv {paper.arxiv})" if paper.arxiv else ""
    typer.echo(f"{paper.number}. {paper.title}{arxiv}: {paper.state}\n{paper.idea}")
    parts = {
        "run it": paper.commands,
        "implemented by": paper.places,
        "tested by": paper.tests,
        "results": [f"{result.sentence} ({result.file})" for result in paper.results],
        "not here": paper.missing,
        "otherwise than in the paper": paper.deviations,
    }
    for title, lines in parts.items():
        if lines:
            typer.echo("\n".join([f"\n{title}:", *(f"  {line}" for line in lines)]))
