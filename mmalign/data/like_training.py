"""Prompts of another file, read as a run reads its own: a policy that looks or listens is never asked blind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from mmalign.data.sources.prompts import Prompts
from mmalign.data.tables import read_table
from mmalign.media.kinds import NOUNS

_LOOKED_AT = 12  # prompts of a source that names no columns


def prompts_like(source: Any, path: str, relative_to: Path | None = None) -> list[Prompt]:
    """The prompts of the file `path`, about pictures or sounds where those of the data `source` are.

    Columns are named as `source` names its own; the text may also stand in "prompt".

    Raises:
        DataError: the file has no column for what the source's prompts are about, or rows that cannot be used.
    """
    table, media = read_table(path, relative_to), _media_columns(source)
    for kind, column in media.items():
        if column not in table.columns:
            raise DataError(
                f"{table.file}: no column '{column}' with the {NOUNS[kind]} that each prompt is about, and the run's "
                f"own prompts are about one; add it, or name other prompts. Columns found: {', '.join(table.columns)}."
            )
    own = str(getattr(source, "column", getattr(source, "prompt", "prompt")))
    column = "prompt" if own not in table.columns and "prompt" in table.columns else own
    named = Prompts(path, column, media.get("image", ""), media.get("audio", ""), relative_to=relative_to)
    return named.of(table)


def _media_columns(source: Any) -> dict[str, str]:
    """The column of each kind of media; of a source that reads no columns, the kinds that its prompts have."""
    named = {kind: column for kind in NOUNS if isinstance(column := getattr(source, kind, None), str)}
    if named:
        return {kind: column for kind, column in named.items() if column}
    first = source.training_items()[:_LOOKED_AT]
    kinds = [set(getattr(item, "prompt", item).media) for item in first]
    return {kind: kind for kind in NOUNS if kinds and all(kind in held for held in kinds)}
