"""The one query of an answer, and whether it asks for an order."""

from __future__ import annotations

import re

from mmalign.rewards.parsing.answers import answer_of
from mmalign.rewards.parsing.text import LONG, Unreadable, bounded

_FENCE = re.compile(r"```[ \t]*(?:sql|sqlite)?[ \t]*\n", re.IGNORECASE)
_START = re.compile(r"(?:select|with|values)\b", re.IGNORECASE)
_TOKEN = re.compile(r"['\"`\[()]|--|/\*|\w+")
_BLANKS = re.compile(r"\s*")
_CLOSES = {"'": "'", '"': '"', "`": "`", "[": "]", "--": "\n", "/*": "*/"}


def query(text: str) -> str:
    """The SQL query in an output: its one code block, else the whole answer.

    Raises:
        Unreadable: several code blocks, an endless one, or something that does not begin as a query does.
    """
    answer = bounded(answer_of(text), LONG)
    if "```" in answer:
        if answer.count("```") != 2:
            raise Unreadable(f"expected one code block, found {answer.count('```')} fences")
        begin = _FENCE.search(answer)
        if begin is None:
            raise Unreadable("the code block is not SQL")
        answer = answer[begin.end() :].partition("```")[0]
    answer = bounded(answer).removesuffix(";").strip()
    if _START.match(answer, _first_word(answer)) is None:
        raise Unreadable(f"a query begins with SELECT, WITH or VALUES, this with '{answer[:40]}'")
    return answer


def is_ordered(sql: str) -> bool:
    """Does the outermost query have an ORDER BY?"""
    depth, last, at = 0, "", 0
    while (match := _TOKEN.search(sql, at)) is not None:
        token, at = match[0], match.end()
        if token in _CLOSES:  # a literal or a comment: its words do not count
            end = sql.find(_CLOSES[token], at)
            if end < 0:
                return False
            at = end + len(_CLOSES[token])
            continue
        depth += (token == "(") - (token == ")")
        if depth == 0 and last == "order" and token.lower() == "by":
            return True
        last = token.lower() if depth == 0 else ""
    return False


def _first_word(sql: str) -> int:
    """Where `sql` begins after comments."""
    at = 0
    while sql.startswith(("--", "/*"), at):
        end = _CLOSES[sql[at : at + 2]]
        close = sql.find(end, at + 2)
        if close < 0:
            return len(sql)
        at = _BLANKS.match(sql, close + len(end)).end()  # type: ignore[union-attr]
    return at
