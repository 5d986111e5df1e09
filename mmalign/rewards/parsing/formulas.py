"""Answers as the LaTeX that a formula parser reads; words are none."""

from __future__ import annotations

import re
from decimal import Context
from fractions import Fraction

from mmalign.rewards.parsing.markup import unwrapped
from mmalign.rewards.parsing.numbers import quantity
from mmalign.rewards.parsing.text import DASHES, SHORT, Unreadable, bounded, scripts_apart

_FUNCTIONS = {"sqrt", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "frac", "infty", "binom"}
_COMMAND = re.compile(
    r"\\(?:text|mathrm|mbox|operatorname|begin|end)\s{0,9}\{[^{}]{0,200}\}|\\[A-Za-z]+|\\.", re.DOTALL
)
_WORD = re.compile(r"[^\W\d_]{4,}")
_LETTERS = re.compile(r"[^\W\d_]{2,}(?:\s+[^\W\d_]+)*[.!?]?")
_RAISED = re.compile(r"\^(-?\d{2,9})")
_BARE_FRACTION = re.compile(r"\\[dtc]?frac\s{0,9}(\{[^{}]{0,400}\}|\d)\s{0,9}(\{[^{}]{0,400}\}|\d)")
_SET_APART = re.compile(r"⟮(\d{1,9})/(\d{1,9})⟯")


def formula(text: str) -> str:
    """The LaTeX of an answer that is nothing but mathematics.

    Numbers are written anew (`numbers.quantity`); raised digits, vulgar fractions and dashes become LaTeX.

    Raises:
        Unreadable: words (a parser of formulas makes products of their letters, and "act" of "cat"), braces that do not
            match, or nothing.
    """
    answer = unwrapped(bounded(text, SHORT))
    try:
        number = quantity(answer)
    except Unreadable:
        return _latex(answer)
    value = number.value * 100 if number.percent else number.value
    return _written(value, decimal="." in answer or "e" in answer.lower()) + ("\\%" if number.percent else "")


def _latex(text: str) -> str:
    bare = _COMMAND.sub(" ", text)
    words = [word for word in _WORD.findall(bare) if word.lower() not in _FUNCTIONS]
    if words or _LETTERS.fullmatch(bare.strip()) or not bare.strip() + text.strip("\\ "):
        raise Unreadable(f"'{text[:60]}' is no formula")
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            break
    if depth:
        raise Unreadable(f"the braces of '{text[:60]}' do not match")
    apart = _SET_APART.sub(r"\\frac{\1}{\2}", scripts_apart(text)).translate(DASHES)
    whole = _BARE_FRACTION.sub(lambda m: f"\\frac{{{m[1].strip('{}')}}}{{{m[2].strip('{}')}}}", apart)
    return _RAISED.sub(r"^{\1}", whole)


def _written(value: Fraction, decimal: bool) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    if decimal:  # a parser compares decimals to some places, fractions exactly
        return f"{Context(prec=40).divide(value.numerator, value.denominator):f}"
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
