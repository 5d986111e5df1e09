"""Numbers as people write them: thousands separators, per cent, currency, Unicode minus."""

from __future__ import annotations

import math
import re
import unicodedata

from mmalign.rewards.parsing.text import SHORT, Unreadable, bounded

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?"
_FORM = r"[-+]?(?:" + _DIGITS + r"|\.\d+)(?:[eE][-+]?\d{1,4})?"
_NUMBER = re.compile(_FORM, re.ASCII)
_INSIDE = re.compile(r"(?<![\w.])" + _FORM, re.ASCII)
_MINUS = str.maketrans({"−": "-", "–": "-", "﹣": "-"})
_LONGEST = 400  # digits; longer ones are no quantity, and every pattern stays linear


def number(text: str) -> float:
    """The number that `text` is, whole; "%", currency signs and thousands separators do not count.

    Raises:
        Unreadable: no number, more than a number, or one that is not finite.
    """
    plain = _plain(text).removesuffix(".")
    if len(plain) > _LONGEST or _NUMBER.fullmatch(plain) is None:
        raise Unreadable(f"'{text.strip()[:60]}' is not a number")
    return _finite(plain)


def last_number(text: str) -> float:
    """The last number that stands in `text`; Unreadable if there is none."""
    found = [match[0] for match in _INSIDE.finditer(_plain(text))]
    if not found or len(found[-1]) > _LONGEST:
        raise Unreadable("no number in the answer")
    return _finite(found[-1])


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", bounded(text, SHORT)).translate(_MINUS)
    return "".join(c for c in folded if c != "%" and unicodedata.category(c) not in ("Sc", "Cf")).strip()


def _finite(digits: str) -> float:
    value = float(digits.replace(",", ""))
    if not math.isfinite(value):
        raise Unreadable(f"'{digits[:60]}' is not finite")
    return value
