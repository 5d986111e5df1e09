"""A file of rows annotated: batch by batch, so that a run that was stopped goes on, and whole or not at all.

What is done stands in a journal beside the output, a line for each batch behind a line that names the input and the
annotators; with another input or other annotators it is not taken up. The output appears when every row was read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.annotators._rows import Annotator, Columns, Row, Skipped
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import write_beside


@dataclass(frozen=True)
class Annotated:
    """What became of a file: `read` rows gave `written` ones; `skipped` counts rows by the reason, `resumed` those that
    an earlier run had read already."""

    read: int
    written: int
    skipped: Mapping[str, int]
    resumed: int


def read_pairs_file(path: Path) -> list[Columns]:
    """The rows of a JSONL file.

    Raises:
        DataError: a line that is no object of JSON; all of them at once.
    """
    rows, faults = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            faults.append(f"{path}:{number}: is no JSON ({error}).")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            faults.append(f'{path}:{number}: is no object, as {{"prompt": …}}.')
    if faults:
        raise DataError("\n".join(faults))
    if not rows:
        raise DataError(f"{path}: holds no row.")
    return rows


def annotate_file(
    path: Path,
    out: Path,
    annotators: Sequence[tuple[str, Annotator]],
    specs: Sequence[Mapping[str, Any]],
    batch: int = 32,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Annotated:
    """Run annotators, one after the other, over the rows of a JSONL file.

    Args:
        path: the rows.
        out: the file to write; what stood there is replaced at the end.
        annotators: by name, in their order; each is given what the one before it made.
        specs: what they were built of: an unfinished journal goes on only for the same.
        batch: rows at a time.
        advance: told how many of how many rows were read.

    Raises:
        ConfigError: `out` is the input.
        DataError: rows that cannot be read.
    """
    if out.exists() and out.samefile(path):
        raise ConfigError(f"--out {out}: is what is annotated and would be lost; name another file.")
    rows, journal = read_pairs_file(path), out.with_name(f"{out.name}.journal")
    header = {"input": hashlib.sha256(path.read_bytes()).hexdigest(), "annotators": list(specs), "batch": batch}
    done = _taken_up(journal, header)
    resumed = min(len(done) * batch, len(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as lines:
        for start in range(len(done) * batch, len(rows), batch):
            some = [Row.of(row, f"{path}, row {start + i}") for i, row in enumerate(rows[start : start + batch])]
            done.append(_annotated(some, annotators))
            lines.write(json.dumps(done[-1], ensure_ascii=False) + "\n")
            lines.flush()
            advance(min(start + batch, len(rows)), len(rows))
    made = [row for part in done for row in part["rows"]]
    with write_beside(out) as beside:
        beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    journal.unlink()
    skipped: Counter[str] = Counter()
    for part in done:
        skipped.update(part["skipped"])
    return Annotated(len(rows), len(made), dict(skipped), resumed)


def _annotated(rows: Sequence[Row], annotators: Sequence[tuple[str, Annotator]]) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    for name, annotator in annotators:
        following: list[Row] = []
        made = annotator(rows) if rows else []
        for row, result in zip(rows, made, strict=True):
            if isinstance(result, Skipped):
                skipped[f"{name}: {result}"] += 1
            else:
                following += [Row.of(columns, row.prompt.place) for columns in result]
        rows = following
    return {"rows": [dict(row.columns) for row in rows], "skipped": dict(skipped)}


def _taken_up(journal: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The batches of a journal of the same work; else it begins anew. A line that was cut off is dropped."""
    kept: list[dict[str, Any]] = []
    if journal.is_file():
        first, *lines = journal.read_text(encoding="utf-8").splitlines() or [""]
        if first == json.dumps(header, sort_keys=True):
            for line in lines:
                try:
                    kept.append(json.loads(line))
                except ValueError:
                    break
    journal.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(journal) as beside:
        whole = [json.dumps(header, sort_keys=True), *(json.dumps(part, ensure_ascii=False) for part in kept)]
        beside.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return kept


__all__ = ["Annotated", "annotate_file", "read_pairs_file"]
