"""A prompt longer than the encoder reads is cut as its pipeline cuts it, but never in silence."""

from __future__ import annotations

import warnings
from typing import Any

from mmalign.core.cuts import count_cut, shown
from mmalign.core.errors import MmalignWarning


def warn_if_cut(
    family: str, text: str, tokens: int, room: int, advice: str = "raise max_sequence_length or shorten it"
) -> None:
    """Warn where a prompt of `tokens` tokens is longer than the `room` there is for it; `advice` says what to do.

    It is counted, too, by whoever counts (`core.cuts.counting_cuts`).
    """
    if tokens > room:
        count_cut(family, text)
        warnings.warn(
            f"{family}: the last {tokens - room} of {tokens} tokens of the prompt '{shown(text)}' are cut; {advice}.",
            MmalignWarning,
            stacklevel=2,
        )


def warn_if_clip_cuts(family: str, text: str, *tokenizers: Any) -> None:
    """`warn_if_cut` for the shortest of CLIP's encoders, whose contexts are what they are."""
    if text and tokenizers:
        rooms = {tokenizer.model_max_length: tokenizer for tokenizer in tokenizers}
        room = min(rooms)
        warn_if_cut(family, text, token_count(rooms[room], text), room, "CLIP reads no more; shorten it")


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of an uncut text, those at its ends included."""
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
