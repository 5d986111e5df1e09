"""Texts made comparable, cut into words, and held to a length."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

SHORT = 10_000  # characters of an answer that is one word, number or letter
LONG = 100_000  # characters of an answer with structure: boxes, JSON, SQL
ENDLESS = 1_000_000  # characters after which nobody reads on

_CJK = r"぀-ヿ㐀-䶿一-鿿豈-﫿"
#: Scripts (as in a character class) in which words, numbers and letters stand beside each other without blanks.
BLANKLESS = _CJK + "가-힣"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
#: Characters that stand for a minus sign or a hyphen.
DASHES = str.maketrans(dict.fromkeys("‐‑‒–−﹣－", "-"))
CLOSING = " \t.,;:!?。、，；：！？…"


_SCRIPTS = {"<super>": "^", "<sub>": "_"}
_AFTER_DIGIT = re.compile(r"(?<=\d)⟮|⟯(?=\d)")


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


def scripts_apart(text: str) -> str:
    """`text` whose raised and lowered characters, vulgar fractions and circled numbers stay by themselves.

    NFKC alone makes 25 of 2⁵, 31⁄2 of 3½ and 51 of 5①. Here they become 2^5, 3⟮1/2⟯ and 5⟮1⟯.
    """
    whole = "".join(_opened(c) for c in text)
    return "".join(_apart(kind, "".join(run)) for kind, run in groupby(whole, _script))


def normalized(text: str) -> str:
    """NFKC, casefolded, invisible characters and closing punctuation dropped, blanks single. At most `SHORT` long.

    Every dash and minus sign is "-". What is raised, lowered or a vulgar fraction is told from what is not: 2⁵ is 2^5,
    log₂5 is log_25, ½ is 1/2, 3½ is 3 1/2.

    The limit is part of the promise of linear time: Unicode normalisation sorts combining marks, and a million of them
    in the wrong order take a million squared steps.
    """
    apart = _AFTER_DIGIT.sub(" ", scripts_apart(bounded(text, SHORT))).replace("⟮", "").replace("⟯", "")
    folded = unicodedata.normalize("NFKC", apart).translate(DASHES).casefold()
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    plain = " ".join(visible.split()).rstrip(CLOSING)
    bare = plain.lstrip(CLOSING)
    # The point of ".5" belongs to the number.
    return f".{bare}" if bare[:1].isdigit() and plain.removesuffix(bare).endswith(".") else bare


def words(text: str) -> list[str]:
    """Runs without blanks; a Chinese or Japanese character is a word by itself."""
    return _WORD.findall(text)


@lru_cache(maxsize=8192)
def _script(character: str) -> str:
    """How a character stands: "^" raised, "_" lowered, "/" a number by itself such as ½ and ①, "" as others do."""
    tag = unicodedata.decomposition(character).partition(" ")[0]
    return _SCRIPTS.get(tag, "/" if tag and unicodedata.category(character) == "No" else "")


@lru_cache(maxsize=8192)
def _opened(character: str) -> str:
    """The characters that a square unit sign such as ㎡ is made of."""
    tag, _, parts = unicodedata.decomposition(character).partition(" ")
    return "".join(chr(int(code, 16)) for code in parts.split()) if tag == "<square>" else character


def _apart(kind: str, run: str) -> str:
    if not kind:
        return run
    if kind == "/":
        return "".join(f"⟮{unicodedata.normalize('NFKC', c).replace('⁄', '/')}⟯" for c in run)
    return kind + unicodedata.normalize("NFKC", run)
