"""Texts made comparable, cut into words, and held to a length."""

from __future__ import annotations

import re
import unicodedata

SHORT = 10_000  # characters of an answer that is one word, number or letter
LONG = 100_000  # characters of an answer with structure: boxes, JSON, SQL
ENDLESS = 1_000_000  # characters after which nobody reads on

_CJK = r"぀-ヿ㐀-䶿一-鿿豈-﫿"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_CLOSING = " \t.,;:!?。、，；：！？…"


class Unreadable(ValueError):
    """The text holds no answer of the kind asked for; the message says why. A reward makes it PARSE_FAIL."""


def bounded(text: str, limit: int = ENDLESS) -> str:
    """`text` without outer blanks; Unreadable if nothing is left or more than `limit` characters."""
    text = text.strip()
    if not text:
        raise Unreadable("the answer is empty")
    if len(text) > limit:
        raise Unreadable(f"the answer has {len(text):,} characters; at most {limit:,} are read")
    return text


def normalized(text: str) -> str:
    """NFKC, casefolded, invisible characters and closing punctuation dropped, blanks single. At most `SHORT` long.

    The limit is part of the promise of linear time: Unicode normalisation sorts combining marks, and a million of them
    in the wrong order take a million squared steps.
    """
    folded = unicodedata.normalize("NFKC", bounded(text, SHORT)).casefold()
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    said = " ".join(visible.split()).rstrip(_CLOSING)
    bare = said.lstrip(_CLOSING)
    # The point of ".5" belongs to the number.
    return f".{bare}" if bare[:1].isdigit() and said.removesuffix(bare).endswith(".") else bare


def words(text: str) -> list[str]:
    """Runs without blanks; a Chinese or Japanese character is a word by itself."""
    return _WORD.findall(text)
