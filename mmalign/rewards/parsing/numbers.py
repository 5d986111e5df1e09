"""Numbers as people and models write them; what is not understood is refused, never read in part.

| written | read as |
|---|---|
| `1,234.5`, `1{,}234`, `1\\,234`, `1 234` | groups of three behind a comma or a blank, thin or not |
| `1e3`, `5×10^3`, `5\\times 10^{3}`, `10²` | powers |
| `3/4`, `\\frac{3}{4}`, `¾`, `3½`, `3 1/2` | fractions and mixed numbers |
| `12%`, `12\\%`, `12 percent` | hundredths |
| `$5`, `\\$5`, `5 €` | the number; `Quantity.currency` keeps the sign |
| `5 million` | hundred, thousand, million, billion (10⁹), trillion (10¹²) |
| `−5`, `+5`, `.5`, `5.`, `**5**`, `(5)`, `$5$`, `\\(5\\)` | the number |

Refused: decimal commas (`1,5`), dates, times, ranges and ratios (`10-20`, `3:1`), parts of expressions (`2x`,
`\\sqrt{2}`, `5 + x`, `f(5)`), letters at a number (`5k`, `4th`, `A5`), numbers beyond a double's range.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from mmalign.rewards.parsing.markup import plain, unwrapped
from mmalign.rewards.parsing.text import BLANKLESS, DASHES, SHORT, Unreadable, bounded

_LONGEST = 400  # digits and powers of ten; beyond, no double holds the number, and every pattern stays linear
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?!\d)(?:\.\d+)?|\.\d+)"
_CURRENCY = r"[$¢£¤¥฿₠-₿﷼]{1,2}"
_MIXED = r"(?P<whole>\d{1,15})(?: ?⟮(?P<top>\d{1,15})/(?P<under>\d{1,15})⟯| (?P<top_>\d{1,15})/(?P<under_>\d{1,15}))"
_RATIO = (
    rf"⟮ ?(?P<above>[-+]?{_DECIMAL}) ?/ ?(?P<below>{_DECIMAL}) ?⟯|(?P<above_>{_DECIMAL}) ?/ ?(?P<below_>{_DECIMAL})"
)
_POWER = (
    rf"(?P<factor>{_DECIMAL}) ?[×x*·] ?10\^(?P<ten>[-+]?\d{{1,4}})|(?P<base>{_DECIMAL})\^(?P<raised>[-+]?\d{{1,4}})"
)
_PLAIN = rf"(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?\d{{1,4}}))?"
_QUANTITY = re.compile(
    rf"(?:(?P<sign>[-+])?(?P<before>{_CURRENCY})?|(?P<before_>{_CURRENCY})(?P<sign_>[-+]))(?:{_MIXED}|{_RATIO}|{_POWER}|{_PLAIN})(?!\d)"
    rf"(?: ?(?P<after>{_CURRENCY}))?(?P<percent> ?(?:%|percent\b|per cent\b|pct\b))?"
    rf"(?: (?P<scale>{'|'.join(_SCALES)})s?\b)?",
    re.ASCII | re.IGNORECASE,
)
# What makes a quantity in prose a part of something else: a letter, a digit or an operator at it, the brackets of a
# function or a command around it. Scripts without blanks between words are no letters here.
_WORD = rf"[^\W{BLANKLESS}]"
_PART_BEFORE = re.compile(
    rf"(?:{_WORD}|[\\^/@.±+-]|\d[,:]|[)}}\]\w] ?[×*·÷+±/^] ?|\d ?[xX] ?|[-±÷×] +|分之|(?:{_WORD}|[)}}\]])[(\[{{⟮])$"
)
_PART_AFTER = re.compile(
    rf"{_WORD}|[\\^_‰]|[十百千万萬亿億兆]|分之| {{0,9}}[×·÷+±/^]|\*\w| {{1,9}}\*|-\w| {{1,9}}- |[(\[{{⟮]\S"
)
_SIGN_OF_ANOTHER = re.compile(rf"(?:{_WORD}|[)\]}}]|\d )$")


@dataclass(frozen=True)
class Quantity:
    """A number as it was written: exactly; per cent are hundredths in `value`."""

    value: Fraction
    percent: bool = False
    currency: str = ""


def quantity(text: str) -> Quantity:
    """The quantity that `text` is, whole, wrappings such as `**5**`, `(5)` and `$5$` aside.

    Raises:
        Unreadable: no number, more than a number, or one that is not understood.
    """
    answer = _simple(unwrapped(bounded(text, SHORT))).strip().removesuffix(".")
    if answer[:1] + answer[-1:] in ("()", "[]", "{}"):
        answer = answer[1:-1].strip()
    if (match := _QUANTITY.fullmatch(answer)) is None:
        raise Unreadable(f"'{text.strip()[:60]}' is not a number")
    return _read(match)


def last_quantity(text: str) -> Quantity:
    """The last quantity in prose: refused where the last digits of the text are a part of something else."""
    answer = _simple(bounded(text, SHORT))
    every = deque(_QUANTITY.finditer(answer), maxlen=1)
    if not every:
        raise Unreadable("no number in the answer")
    last = every[0]
    start, rest = last.start(), answer[last.end() :]
    # A sign of currency may follow letters (US$5).
    before = "" if (last["before"] and not last["sign"]) or last["before_"] else answer[max(0, start - 20) : start]
    signed = last["sign"] and _SIGN_OF_ANOTHER.search(before)
    if signed or _PART_BEFORE.search(before) or _PART_AFTER.match(rest) or any(c.isdigit() for c in rest):
        around = answer[max(0, start - 20) : last.end() + 20].strip()
        raise Unreadable(f"the last number stands in '{around[:60]}', which is not understood")
    return _read(last)


def number(text: str) -> float:
    """`quantity(text)` as a float."""
    return float(quantity(text).value)


def last_number(text: str) -> float:
    """`last_quantity(text)` as a float."""
    return float(last_quantity(text).value)


def _simple(text: str) -> str:
    folded = "".join(_folded(c) for c in plain(text)).translate(DASHES)
    return re.sub(r"[^\S\n]", " ", folded)


def _folded(character: str) -> str:
    """Wide and styled letters and digits as plain ones; invisible characters as nothing."""
    if character.isascii():
        return character
    if unicodedata.category(character) == "Cf":
        return ""
    tag = unicodedata.decomposition(character).partition(" ")[0]
    wide = tag in ("<wide>", "<narrow>", "<font>", "<noBreak>")
    return unicodedata.normalize("NFKC", character) if wide else character


def _read(match: re.Match[str]) -> Quantity:
    if len(match[0]) > _LONGEST:
        raise Unreadable("the number has more digits than a double holds")
    try:
        value = _magnitude(match)
        value *= -1 if "-" in (match["sign"], match["sign_"]) else 1
        value *= _SCALES[match["scale"].lower()] if match["scale"] else 1
        value /= 100 if match["percent"] else 1
        float(value)
    except (ZeroDivisionError, OverflowError):
        raise Unreadable(f"'{match[0][:60]}' is not finite") from None
    currency = (match["before"] or match["before_"] or match["after"] or "").replace("¤", "$")
    return Quantity(value, bool(match["percent"]), currency[:1] if currency == "$$" else currency)


def _magnitude(match: re.Match[str]) -> Fraction:
    if match["whole"]:
        top, under = match["top"] or match["top_"], match["under"] or match["under_"]
        return int(match["whole"]) + Fraction(int(top), int(under))
    if match["above"] or match["above_"]:
        return _exact(match["above"] or match["above_"]) / _exact(match["below"] or match["below_"])
    if match["base"]:
        return _power(_exact(match["base"]), int(match["raised"]))
    if match["factor"]:
        return _exact(match["factor"]) * _power(Fraction(10), int(match["ten"]))
    return _exact(match["decimal"]) * _power(Fraction(10), int(match["exponent"] or 0))


def _exact(digits: str) -> Fraction:
    return Fraction(re.sub("[, ]", "", digits))


def _power(base: Fraction, exponent: int) -> Fraction:
    size = max(len(str(base.numerator)), len(str(base.denominator)))
    if abs(exponent) * size > 10 * _LONGEST:
        raise OverflowError
    return base**exponent
