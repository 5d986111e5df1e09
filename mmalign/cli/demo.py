"""`mmalign demo`: a finished run, or two, on a page of its own; with `--live` the report of one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command("demo")(demo)


def demo(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="where the page is served")] = 7860,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in")] = "127.0.0.1",
    share: Annotated[bool, typer.Option("--share", help="also by a public link, through Gradio's servers")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="change the run file: adapter.model=…")
    ] = None,
    against: Annotated[
        str, typer.Option("--against", metavar="DIR", help="vote blindly between another run, or `start`, and this one")
    ] = "",
    live: Annotated[bool, typer.Option("--live", help="its report, made anew while the run goes on")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that the run file may name as module:Class")] = None,
) -> None:
    """Try a run out in the browser: its start beside what it learned, by the same noise, with every score."""
    if live:
        _serve_live(run, host, port)
        return
    starting(f"opening {run}")
    from mmalign.demo.page import page, require_gradio
    from mmalign.demo.serving import launching

    require_gradio()
    if against:
        built = _voting_page(run, against)
    else:
        from mmalign.run.load import load_run

        built = page(load_run(run, allow or (), changes or ()), run.resolve().name)
    try:
        built.launch(server_name=host, server_port=port, share=share, **launching())
    except OSError:
        raise _cannot_listen(host, port) from None


def _voting_page(run: Path, against: str) -> Any:
    """Pairs of two runs, as their evaluations kept them; votes and exported rows lie in `votes/` of the run."""
    from mmalign.demo.compare_page import compare_page
    from mmalign.demo.pairs import open_pairs
    from mmalign.demo.votes import Votes

    pairs = open_pairs(run, against)
    file = run / "votes" / f"{Path(against).resolve().name}.sqlite"
    same = f" ({len(pairs.same)} more are the same on both sides)" if pairs.same else ""
    typer.echo(f"{pairs.count - len(pairs.same)} pairs of {pairs.names[0]} and {pairs.names[1]}{same}; votes: {file}")
    return compare_page(pairs, Votes(file, pairs.about), file.with_name(f"{file.stem}_preferences"))


def _serve_live(run: Path, host: str, port: int) -> None:
    from mmalign.evaluation.folders import require_run

    require_run(run)
    from mmalign.evaluation.live import server

    try:
        serving = server(run, host, port)
    except OSError:
        raise _cannot_listen(host, port) from None
    typer.echo(
        f"http://{host}:{serving.server_port}/ shows {run} while it goes on; Ctrl-C ends this page, not the run."
    )
    with serving:
        serving.serve_forever()


def _cannot_listen(host: str, port: int) -> Exception:
    from mmalign.core.errors import ConfigError

    return ConfigError(f"--host {host} --port {port}: cannot listen there; name another port or host.")
