"""Setting rows aside by what their prompt says, so that no prompt is on both sides."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmalign.core.errors import DataError
from mmalign.core.rng import stream_seed

log = logging.getLogger("mmalign")


def split_by_text(texts: Sequence[str], share: float, file: str) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out, both in file order.

    Distinct texts are ranked by a hash of the text alone and the first `share` of them (rounded) is held out: the split
    is the same on every machine and for every run seed, equal prompts stay together, and adding lines moves few.

    Raises:
        DataError: one side would be empty.
    """
    if share == 0:
        return list(range(len(texts))), []
    distinct = sorted(set(texts), key=lambda text: (stream_seed(0, "held out", text), text))
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise DataError(
            f"{file}: held_out = {share} of {len(distinct)} distinct prompts is {count}; both sides need at least one."
        )
    aside = set(distinct[:count])
    kept = [i for i, text in enumerate(texts) if text not in aside]
    return kept, [i for i, text in enumerate(texts) if text in aside]


def warn_of_leaks(training: Sequence[str], held_out: Sequence[str], files: tuple[str, str]) -> int:
    """Log how many held-out texts are also trained on; returns that number."""
    shared = [text for text in dict.fromkeys(held_out) if text in set(training)]
    if shared:
        log.warning(
            "%d of %d held-out prompts of %s are also in %s (the first: %r): held-out figures will look too good.",
            *(len(shared), len(set(held_out)), files[1], files[0], shared[0]),
        )
    return len(shared)
