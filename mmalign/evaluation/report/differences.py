"""Two texts word by word: what stays, what went, what came."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

__all__ = ["MOST_WORDS", "Piece", "word_differences"]

MOST_WORDS = 1000  # of each text: the time grows with the product of both lengths


class Piece(NamedTuple):
    """Some words in a row, with the space after them, and whether they stand in both texts."""

    kind: Literal["same", "gone", "new"]
    text: str


def word_differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces, "same" or "gone" of `before`, "same" or "new" of `after`; joined they are the texts.

    Texts of more than `MOST_WORDS` words are one piece each, "same": nothing was compared.
    """
    words = [re.findall(r"\S+\s*|^\s+", text) for text in (before, after)]
    if max(map(len, words)) > MOST_WORDS:
        return [Piece("same", before)], [Piece("same", after)]
    plain = [[word.strip() for word in side] for side in words]
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for tag, a, b, c, d in SequenceMatcher(None, plain[0], plain[1], autojunk=False).get_opcodes():
        for side, part, moved in ((0, words[0][a:b], "gone"), (1, words[1][c:d], "new")):
            if part:
                sides[side].append(Piece("same" if tag == "equal" else moved, "".join(part)))  # type: ignore[arg-type]
    return sides
