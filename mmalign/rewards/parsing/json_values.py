"""JSON inside text."""

from __future__ import annotations

import json
import re
from typing import Any

from mmalign.rewards.parsing.text import LONG, Unreadable, bounded

_OPENING, _MARKS = re.compile(r"[\[\]{}]"), re.compile(r'["\[\]{}]')
_REST_OF_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PAIR = {"]": "[", "}": "{"}
_DEEPEST = 64


def json_values(text: str, limit: int = LONG) -> list[Any]:
    """Every outermost JSON object or array in `text`, in order; code fences and prose around them do not count.

    Strict: no NaN or Infinity, no trailing commas; at most 64 levels deep.

    Raises:
        Unreadable: a bracket that does not close, or what stands between brackets is not JSON.
    """
    return [_decoded(part) for part in _outermost(bounded(text, limit))]


def _outermost(text: str) -> list[str]:
    """The balanced bracketed parts; quotes count only inside brackets."""
    parts: list[str] = []
    stack: list[str] = []
    at = start = 0
    while (match := (_MARKS if stack else _OPENING).search(text, at)) is not None:
        at, mark = match.end(), match[0]
        if mark == '"':
            at = _after_string(text, at)
        elif mark in "[{":
            start = start if stack else match.start()
            stack.append(mark)
            if len(stack) > _DEEPEST:
                raise Unreadable(f"brackets are nested deeper than {_DEEPEST}")
        else:
            if not stack or stack.pop() != _PAIR[mark]:
                raise Unreadable(f"'{mark}' at character {match.start()} closes nothing")
            if not stack:
                parts.append(text[start:at])
    if stack:
        raise Unreadable(f"'{stack[-1]}' is never closed")
    return parts


def _after_string(text: str, at: int) -> int:
    if (rest := _REST_OF_STRING.match(text, at)) is None:
        raise Unreadable("a string is never closed")
    return rest.end()


def _decoded(part: str) -> Any:
    try:
        return json.loads(part, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:100]}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
