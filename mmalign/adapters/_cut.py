"""A prompt longer than the encoder reads is cut as its pipeline cuts it, but never in silence."""

from __future__ import annotations

import warnings


def warn_if_cut(
    family: str, text: str, tokens: int, room: int, advice: str = "raise max_sequence_length or shorten it"
) -> None:
    """Warn where a prompt of `tokens` tokens is longer than the `room` there is for it; `advice` says what to do."""
    if tokens > room:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        warnings.warn(
            f"{family}: the last {tokens - room} of {tokens} tokens of the prompt '{shown}' are cut; {advice}.",
            stacklevel=2,
        )
