"""Prompts of another file, read as the data of a run are read: about pictures or sounds where those are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmalign.core.errors import DataError
from mmalign.core.protocols import DataSource
from mmalign.core.types import Prompt
from mmalign.data.file_source import FileSource
from mmalign.data.renamed_columns import columns_there, with_columns
from mmalign.data.row_kinds import prompts_of
from mmalign.data.sources.prompts import Prompts
from mmalign.data.tables import read_table
from mmalign.media.kinds import NOUNS

_LOOKED_AT = 12  # prompts of a source that names no columns


def prompts_like(source: DataSource, path: str, relative_to: Path | None = None) -> Sequence[Prompt]:
    """Return the prompts of the file `path`, about pictures or sounds where those of the data `source` are.

    Columns are named as `source` names its own, or by the names that it gives them; the text may also stand in
    "prompt".

    Raises:
        DataError: the file has no column for what the source's prompts are about, or rows that cannot be used.
    """
    skip_bad = isinstance(source, FileSource) and source.skip_bad
    table, media = read_table(path, relative_to, skip_bad=skip_bad), _media_columns(source)
    if isinstance(source, FileSource):
        table = with_columns(table, columns_there(table, source.columns))
    for kind, column in media.items():
        if column not in table.columns:
            raise DataError(
                f"{table.file}: no column '{column}' with the {NOUNS[kind]} that each prompt is about, and the run's "
                f"own prompts are about one; add it, or name other prompts. Columns found: {', '.join(table.columns)}."
            )
    own = source.prompt_column() if isinstance(source, FileSource) else "prompt"
    column = "prompt" if own not in table.columns and "prompt" in table.columns else own
    image, audio = (media.get(kind, "") for kind in ("image", "audio"))
    return Prompts(path, column, image=image, audio=audio, relative_to=relative_to, skip_bad=skip_bad).rows_of(table)


def _media_columns(source: DataSource) -> dict[str, str]:
    """The column of each kind of media; of a source that reads no columns, the kinds that its prompts have."""
    if isinstance(source, FileSource):
        return {kind: column for kind, column in source.media_columns().items() if column}
    media = [set(prompt.media) for prompt in prompts_of(source.training_items()[:_LOOKED_AT])]
    return {kind: kind for kind in NOUNS if media and all(kind in of_prompt for of_prompt in media)}
