"""Instructions that a rule can check, as data: {"max_words": 50}. After IFEval (Zhou et al. 2023, 2311.07911)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmalign.core.errors import did_you_mean
from mmalign.core.texts import unpacked
from mmalign.rewards.parsing import words

Check = Callable[[str, Any], bool]
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
# A run of marks is looked at from its beginning alone: from each of them a long one would take squared time.
_END = re.compile(r"(?<![.!?…])[.!?…]+(?=\s|$)|[。！？]+")


def _sentences(text: str) -> int:
    return max(1, len(_END.findall(text)))


def _paragraphs(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"\n[ \t]*\n", text))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _has_keys(text: str, keys: list[str]) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and {str(key).casefold() for key in value} == set(keys)


def _all_of(value: Any) -> list[str]:
    return [str(v).casefold() for v in (value if isinstance(value, list | tuple) else [value])]


#: What an instruction's value must be, and when a text (without outer blanks) follows it.
CHECKS: dict[str, tuple[str, Check]] = {
    "words": ("number", lambda text, n: len(words(text)) == n),
    "max_words": ("number", lambda text, n: len(words(text)) <= n),
    "min_words": ("number", lambda text, n: len(words(text)) >= n),
    "max_characters": ("number", lambda text, n: len(text) <= n),
    "sentences": ("number", lambda text, n: _sentences(text) == n),
    "max_sentences": ("number", lambda text, n: _sentences(text) <= n),
    "paragraphs": ("number", lambda text, n: _paragraphs(text) == n),
    "bullets": ("number", lambda text, n: len(_BULLET.findall(text)) == n),
    "contains": ("texts", lambda text, setting: all(v in text.casefold() for v in _all_of(setting))),
    "excludes": ("texts", lambda text, setting: not any(v in text.casefold() for v in _all_of(setting))),
    "starts_with": ("text", lambda text, setting: text.casefold().startswith(setting.casefold())),
    "ends_with": ("text", lambda text, setting: text.casefold().endswith(setting.casefold())),
    "lower_case": ("switch", lambda text, on: (text == text.lower()) == on),
    "upper_case": ("switch", lambda text, on: (text == text.upper()) == on),
    "json": ("switch", lambda text, on: _is_json(text) == on),
    "json_keys": ("texts", lambda text, keys: _has_keys(text, _all_of(keys))),
    "equals": ("text", lambda text, setting: text.strip(" .").casefold() == setting.casefold()),
}
_KINDS: dict[str, Callable[[Any], bool]] = {
    "number": lambda v: type(v) in (int, float) and v >= 0 and v == v // 1,  # tables make floats of whole numbers
    "text": lambda v: isinstance(v, str) and bool(v),
    "texts": lambda v: all(isinstance(t, str) and t for t in (v if isinstance(v, list | tuple) and v else [v])),
    "switch": lambda v: isinstance(v, bool),
}


def read_instructions(value: Any, place: str) -> tuple[list[tuple[str, Any]], list[str]]:
    """What rules check, as (name, value), and what is said in words, from plain data.

    A list, or one by itself, of objects (names of `CHECKS` with their values) and texts. A name may occur in several. A
    text that begins as a list or an object is JSON, which is what a CSV file holds.

    Raises:
        ValueError: naming `place`, the entry and what it should be.
    """
    checks: list[tuple[str, Any]] = []
    texts: list[str] = []
    value = unpacked(value, place)
    for entry in value if isinstance(value, list | tuple) else [value]:
        if isinstance(entry, str) and entry.strip():
            texts.append(entry.strip())
        elif isinstance(entry, Mapping):
            # A table fills in every column of every row: None there is nothing said.
            for name, setting in ((str(k), v) for k, v in entry.items() if v is not None):
                if name not in CHECKS:
                    hint = f"{did_you_mean(name, CHECKS)} Known: {', '.join(CHECKS)}."
                    raise ValueError(f"{place}: no rule checks '{name[:60]}'.{hint}")
                if not _KINDS[CHECKS[name][0]](setting):
                    raise ValueError(f"{place}: {name} takes a {CHECKS[name][0]}, found {str(setting)[:60]!r}")
                checks.append((name, setting))
        else:
            raise ValueError(f"{place}: an instruction is a text or an object, found {str(entry)[:60]!r}")
    return checks, texts


def followed(text: str, checks: Iterable[tuple[str, Any]]) -> list[bool]:
    """Which instructions the text follows."""
    return [bool(CHECKS[name][1](text, setting)) for name, setting in checks]
