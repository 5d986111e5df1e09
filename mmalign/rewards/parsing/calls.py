"""Tool calls in outputs and in data, each as {"name": str, "parameters": object}."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmalign.rewards.parsing.text import LONG, Unreadable, bounded

START, END = "<tool_call>", "</tool_call>"
_PARAMETERS = ("parameters", "arguments")  # ToolRL's name, and that of Hermes, Qwen and OpenAI
_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"\s*")


def tool_calls(text: str, tools: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The calls of every `<tool_call>` … `</tool_call>` in an answer without its thinking, in order.

    Inside stand JSON objects, each beginning on a line of its own and as many lines long as it likes.

    Args:
        text: the answer.
        tools: the parameters of calls of other tools are not looked at (ToolRL's code reads only those it compares).

    Raises:
        Unreadable: no block, one that is not closed, or something in it that is no call.
    """
    parts = text.split(START)
    if len(parts) < 2 or END in parts[0] or any(part.count(END) != 1 for part in parts[1:]):
        raise Unreadable(f"no {START} … {END}, or tags of it that are no pair")
    return [call for part in parts[1:] for call in _calls_in(bounded(part.partition(END)[0], LONG), tools)]


def calls_of(value: object) -> list[dict[str, Any]] | None:
    """The calls that a column holds: in tags, as JSON text (a list, an object, one a line), as a list or an object.

    None where the value is a text in tags without a call, such as `<response>…</response>`: none is right then.

    Raises:
        Unreadable: it holds neither.
    """
    if isinstance(value, str):
        text = bounded(value, LONG)
        if START in text:
            return tool_calls(text)
        if "<response>" in text or "<think>" in text:
            return None
        if text.startswith("["):
            return calls_of(_json(text))
        return _calls_in(text)
    if isinstance(value, Mapping):
        return [_call(value)]
    if not isinstance(value, Sequence):
        raise Unreadable(f"expected tool calls, found {str(value)[:60]!r}")
    return [_call(_json(entry) if isinstance(entry, str) else entry) for entry in value]


def _calls_in(block: str, tools: Collection[str] | None = None) -> list[dict[str, Any]]:
    calls, at = [], 0
    while at < len(block):
        try:
            value, end = _DECODER.raw_decode(block, at)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"a line of the calls is not JSON: {str(error)[:100]}") from None
        at = _BLANKS.match(block, end).end()  # type: ignore[union-attr]
        if at < len(block) and "\n" not in block[end:at]:
            raise Unreadable("a call begins on a line of its own")
        calls.append(_call(value, tools))
    return calls


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:100]}") from None


def _call(value: object, tools: Collection[str] | None = None) -> dict[str, Any]:
    """One call; OpenAI's {"type": "function", "function": {…}}, and parameters that are JSON text, are opened."""
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise Unreadable(f"a call is an object with a 'name', found {_brief(value)}")
    if tools is not None and value["name"] not in tools:
        return {"name": value["name"], "parameters": {}}
    named = [key for key in _PARAMETERS if value.get(key) is not None]
    parameters = value[named[0]] if len(named) == 1 else None
    parameters = _json(parameters) if isinstance(parameters, str) else parameters
    if not isinstance(parameters, Mapping):
        raise Unreadable(f"call '{value['name'][:60]}' has no object 'parameters' or 'arguments'")
    return {"name": value["name"], "parameters": dict(parameters)}


def _brief(value: object) -> str:
    return json.dumps(value, default=lambda v: type(v).__name__, ensure_ascii=False)[:60]
