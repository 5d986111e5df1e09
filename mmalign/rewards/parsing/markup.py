"""Wrappings that say how an answer is set, not what it is: Markdown, LaTeX, quotation marks."""

from __future__ import annotations

import re

from mmalign.rewards.parsing.text import CLOSING, SHORT, scripts_apart

_PAIRS = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("*", "*")]
_PAIRS += [("```", "```"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("「", "」")]
_SETTING = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|bm|boldsymbol|boxed|fbox|operatorname)"
_COMMAND = re.compile(_SETTING + r"\s{0,9}\{")
_MOST = 8  # wrappings around each other

_FRACTION = re.compile(r"\\[dtc]?frac\s{0,9}(\{[^{}]{1,400}\}|\d)\s{0,9}(\{[^{}]{1,400}\}|\d)")
_EXPONENT = re.compile(r"\^\s?[{(]\s?([-+]?\d{1,9})\s?[)}]")
_SIMPLER = [
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;:> ]|\\(?:thinspace|quad|qquad)(?![A-Za-z])|~"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "¤"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])\s{0,9}"), "×"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\^\s?\{?\\circ\}?|\\degree(?![A-Za-z])"), "°"),
    (re.compile(r"\\[()\[\]]"), " "),
]


def unwrapped(text: str) -> str:
    """`text` without what is set around all of it: `**Paris**`, `"Paris"`, `$5$`, `\\\\(5\\\\)`, `\\\\text{Paris}`.

    At most eight wrappings, each only where it opens at the very beginning and closes at the very end, closing
    punctuation aside. A single sign of currency wraps nothing. A text longer than `SHORT` is left as it is.
    """
    if len(text) > SHORT:
        return text
    for _ in range(_MOST):
        text = text.strip()
        within = _within(text)
        within = _within(text.rstrip(CLOSING)) if within is None else within
        if within is None:
            break
        text = within
    return text


def plain(text: str) -> str:
    """LaTeX, Markdown and Unicode of a quantity written in one way: `2^5`, `⟮1/2⟯`, `1,234`, `12%`, `¤` for `\\\\$`.

    What is no part of a quantity may come out changed.
    """
    text = scripts_apart(text)
    for pattern, written in _SIMPLER:
        text = pattern.sub(written, text)
    text = _FRACTION.sub(lambda m: f"⟮{m[1].strip('{}')}/{m[2].strip('{}')}⟯", text)
    text = _EXPONENT.sub(r"^\1", text)
    text = _COMMAND.sub(" {", text)
    return re.sub(r"\*\*|__|`", "", re.sub(r"(?<=\d)\*\*(?=[-+]?\d)", "^", text))


def _within(text: str) -> str | None:
    """What stands inside the one wrapping of all of `text`, or None."""
    for opening, closing in _PAIRS:
        inside = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            tight = inside.strip() and (opening not in ("$", "*", "'") or inside == inside.strip())
            return inside if tight and opening not in inside and closing not in inside else None
    command = _COMMAND.match(text)
    if command and text.endswith("}") and _closes_at_end(text, command.end()):
        return text[command.end() : -1]
    return None


def _closes_at_end(text: str, at: int) -> bool:
    depth = 1
    for mark in re.finditer(r"\\.|[{}]", text[at:], re.DOTALL):
        depth += (mark[0] == "{") - (mark[0] == "}")
        if depth == 0:
            return at + mark.end() == len(text)
    return False
