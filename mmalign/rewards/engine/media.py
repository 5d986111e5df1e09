"""The pictures and sounds a prompt is about; one that cannot be read is the failure of its row, never of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.core.errors import DataError, MediaError
from mmalign.core.types import Audio, Prompt

Known = dict[int, Mapping[str, Any]]


def media_of(prompt: Prompt, known: Known | None = None) -> Mapping[str, Any]:
    """`prompt.media` decoded, on the CPU; `known` keeps it for rows that share it, for the length of a call.

    Raises:
        ValueError: a file that is missing or cannot be decoded; says which.
    """
    media, known = prompt.media, {} if known is None else known
    if id(media) not in known:
        try:
            known[id(media)] = {name: _plain(value) for name, value in media.items()}
        except (DataError, MediaError, OSError) as error:
            raise ValueError(f"what the prompt is about cannot be read: {error}") from error
    return known[id(media)]


def _plain(value: Any) -> Any:
    return value.to("cpu") if isinstance(value, Audio) else value.detach().cpu()
