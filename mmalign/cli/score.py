"""`mmalign score`: any reward on outputs made anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmalign.cli._progress import progress
from mmalign.core.errors import ConfigError
from mmalign.core.pace import starting

if TYPE_CHECKING:
    from mmalign.run.rows import Row
    from mmalign.run.score_parts import Parts


def register(app: typer.Typer) -> None:
    """Add `score`."""
    app.command("score")(score)


def score(
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS.jsonl|DIR", help="lines of prompt, output, meta?, group?, image?, audio?, kind?; or a folder"
        ),
    ],
    reward: Annotated[str, typer.Option(help="a name from `mmalign list rewards`")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of the reward")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write lines here instead of printing them")] = None,
    batch: Annotated[int, typer.Option(min=1, help="rows per call")] = 64,
    cache: Annotated[bool, typer.Option(help="remember scores of rows seen before, beside the rows")] = False,
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Score every row; a set reward gives one line for the whole file.

    A row whose file cannot be read has status error; all others are scored. Exit code: 0, 1 if a row could not be
    scored (every line is written, and how many they are is said), 2 if nothing was.
    """
    starting(f"checking what '{reward}' is to score")
    from mmalign.core.config import override
    from mmalign.core.protocols import SetReward
    from mmalign.rewards import Guarded, ScoreCache, load_reward
    from mmalign.run.launch import share
    from mmalign.run.rows import indexed_rows, left_out
    from mmalign.run.score import scores_rows_alone
    from mmalign.run.score_parts import Parts, digest_of_file

    named = override({}, options or [])
    if "name" in named:
        raise ConfigError("--set name=…: the reward is named by --reward.")
    if out is not None:
        _require_own_file(out, rows)
    judge = load_reward(reward, allow or (), **named)
    table = indexed_rows(rows)
    if rows.is_dir() and (others := left_out(rows)):
        typer.echo(f"note: {rows}: {others}", err=True)
    if not isinstance(judge, SetReward):
        store = ScoreCache(_cache_beside(rows)) if cache else None
        judge = Guarded(reward, judge, monitor=True, cache=store)
    process, processes = share()
    if out is not None and scores_rows_alone(judge):
        scoring = {"reward": reward, "options": named, "digest": digest_of_file(rows)}
        parts = Parts(out, len(table), scoring)
        note = _score_in_parts(parts, table, judge, rows, batch, reward, process, processes)
    elif processes > 1:
        raise ConfigError(
            f"--reward {reward}: what it says of a row hangs on the others, so that processes cannot share the file; "
            "start one."
            if out is not None
            else "several processes were started: name the file with --out that they write together."
        )
    else:
        note = _score_at_once(out, list(table), judge, rows, batch, reward)
    if note:
        typer.echo(f"note: {note}", err=True)
        raise typer.Exit(1)


def _score_at_once(out: Path | None, table: list[Row], judge: Any, rows: Path, batch: int, name: str) -> str:
    """Score all rows and write or print their lines; says what has no score."""
    from mmalign.core.files import write_beside
    from mmalign.run.score import failed, score_rows

    with write_beside(out) if out else nullcontext() as beside:  # a file that cannot be written is no work lost
        with progress("scoring", "scored") as advance:
            lines = score_rows(table, judge, _folder(rows), batch, advance, name)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if beside is None:
            typer.echo(text, nl=False)
        else:
            beside.write_text(text, encoding="utf-8")
    return failed(lines)


def _score_in_parts(
    parts: Parts, table: Sequence[Row], judge: Any, rows: Path, batch: int, name: str, process: int, processes: int
) -> str:
    """Score the parts that are this process's; the first one joins them and says what has no score."""
    from mmalign.run.score import checked_kind, score_checked

    kind = checked_kind(table, judge)
    there = parts.open(first=process == 0)
    if there and process == 0:
        typer.echo(f"note: {there} of {parts.count} parts were scored before; going on with the others.", err=True)

    def score(taken: Sequence[int]) -> list[dict[str, Any]]:
        return score_checked([table[i] for i in taken], judge, _folder(rows), kind, batch, name=name)

    with progress("scoring", "scored") as advance:
        parts.score(score, process, processes, advance)
    return parts.join() if process == 0 else ""


def _folder(rows: Path) -> Path:
    """Where relative outputs start."""
    return rows if rows.is_dir() else rows.parent


def _require_own_file(out: Path, rows: Path) -> None:
    """ConfigError if `out` is a folder, or what is scored."""
    from mmalign.media.kinds import hinted

    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file.")
    if not out.exists() or not rows.exists():
        return
    inside = rows.is_dir() and out.parent.samefile(rows) and (hinted(out.name) or out.suffix.lower() == ".txt")
    if inside or out.samefile(rows):
        raise ConfigError(f"--out {out}: is what is scored and would be lost; name another file.")


def _cache_beside(rows: Path) -> Path:
    """`rows.scores.sqlite` for rows.jsonl; a folder may be named as `.`, which has no name of its own."""
    place = rows.resolve() if rows.name in ("", "..") else rows
    return place.parent / f"{place.stem}.scores.sqlite"
