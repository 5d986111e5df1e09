"""Tool calls, one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

from mmalign.rewards.parsing.text import LONG, Unreadable, bounded

START, END = "<tool_call>", "</tool_call>"


def tool_calls(text: str) -> list[dict[str, Any]]:
    """The calls of the first `<tool_call>` … `</tool_call>`: objects {"name": str, "parameters": object}.

    Raises:
        Unreadable: a tag is missing, a line is not such an object.
    """
    if START not in text or END not in text:
        raise Unreadable(f"no {START} … {END}")
    inside = bounded(text.partition(START)[2].partition(END)[0], LONG)
    return [_call(line) for line in inside.split("\n")]


def _call(line: str) -> dict[str, Any]:
    try:
        call = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"a line of the calls is not JSON: {str(error)[:100]}") from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise Unreadable(f"a call is an object with a 'name', found {line.strip()[:60]}")
    if not isinstance(call.get("parameters"), dict):
        raise Unreadable(f"call '{call['name'][:60]}' has no object 'parameters'")
    return call
