"""The pictures a prompt is about; one that cannot be read is the failure of its row, never of the run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmalign.core.errors import DataError, MediaError
from mmalign.core.types import Prompt

Known = dict[int, Mapping[str, Tensor]]


def pictures_of(prompt: Prompt, known: Known | None = None) -> Mapping[str, Tensor]:
    """`prompt.media` decoded; `known` keeps what was decoded for rows that share it, for the length of a call.

    Raises:
        ValueError: a file that is missing or no picture; says which.
    """
    media, known = prompt.media, {} if known is None else known
    if id(media) not in known:
        try:
            known[id(media)] = {name: value.detach().cpu() for name, value in media.items()}
        except (DataError, MediaError, OSError) as error:
            raise ValueError(f"a picture of the prompt cannot be read: {error}") from error
    return known[id(media)]
