"""The one option that a multiple-choice answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmalign.rewards.parsing.text import SHORT, Unreadable, bounded, normalized

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CAPITAL = re.compile(r"(?<!\w)[A-Z](?![\w'’])")


def choice(text: str, options: int, texts: Sequence[str] = ()) -> str:
    """The capital letter of the option that `text` names.

    A text that is an option's own words, or a single letter of either case, is that option. Else exactly one letter
    may stand in it as a word of its own: "A or B" names none, however often it repeats them.

    Args:
        text: the answer, without thinking.
        options: how many there are, lettered from A.
        texts: their words, where known.

    Raises:
        Unreadable: no option, or several.
    """
    letters = LETTERS[:options]
    plain = normalized(bounded(text, SHORT))
    same = [letter for letter, words in zip(letters, texts, strict=False) if normalized(str(words)) == plain]
    if len(same) == 1:
        return same[0]
    alone = plain.strip("()[]{}*_\"'` ").upper()
    if len(alone) == 1 and alone in letters:
        return alone
    named = {letter for letter in _CAPITAL.findall(text) if letter in letters}
    if len(named) != 1:
        found = " and ".join(sorted(named)) or "none"
        raise Unreadable(f"the answer must name one option of {letters[:1]}–{letters[-1:]}; it names {found}")
    return named.pop()
