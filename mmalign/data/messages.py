"""Cells that hold conversations, as TRL and the Hub write them: read, checked and brought into one form.

| a cell | read as |
|---|---|
| [{"role": "user", "content": "…"}, …] | itself |
| content: [{"type": "text", "text": "…"}, {"type": "image"}, …] | itself; {"type": "image", "image": "a.png"} brings its picture along |
| [{"from": "human", "value": "…"}, …] (ShareGPT) | roles user, assistant, system, tool |
| "\\n\\nHuman: … \\n\\nAssistant: …" (hh-rlhf) | user and assistant, by `read_transcript` |

Entries that are null, as Arrow fills them in, count as absent.
"""  # noqa: E501

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmalign.core.conversation import ROLES, THOUGHTS, Answer, Message
from mmalign.core.errors import DataError, did_you_mean, shown
from mmalign.core.texts import half_character

SHAREGPT = {"human": "user", "gpt": "assistant", "bing": "assistant", "chatgpt": "assistant", "function": "tool"}
MEDIA = {"image": "image", "image_url": "image", "audio": "audio", "audio_url": "audio", "input_audio": "audio"}
INSIDE = ("image", "audio", "path", "url", "bytes", "image_url", "audio_url", "input_audio", "data")
MARKS = {"Human": "user", "Assistant": "assistant"}  # of hh-rlhf
OPENING = "\n\nHuman:"


@dataclass(frozen=True)
class Conversation:
    """Checked messages, and the cell of each place for a medium in them: None where the row has it elsewhere."""

    messages: tuple[Message, ...]
    cells: tuple[Any, ...] = ()


def is_messages(cell: object) -> bool:
    """Is it a list whose entries are messages, right or wrong ones?"""
    return isinstance(cell, list | tuple) and bool(cell) and all(isinstance(entry, Mapping) for entry in cell)


def read_messages(cell: object, where: str) -> Conversation:
    """Return the messages of a cell.

    Args:
        cell: a list of messages.
        where: the place and column, for messages: "file:3, 'messages'".

    Raises:
        DataError: an unknown role, an empty turn, a content of another form, videos; in one sentence.
    """
    if not isinstance(cell, list | tuple) or not cell:
        raise DataError(f"{where} is {shown(cell, 120)}; expected messages like {{'role': 'user', 'content': '…'}}.")
    messages, cells = list[Message](), list[Any]()
    for number, entry in enumerate(cell, 1):
        if _is_simple(entry):
            messages.append(entry)
            continue
        message, inside = _message(entry, f"{where}: message {number}")
        messages.append(message)
        cells += inside
    return Conversation(tuple(messages), tuple(cells))


def _is_simple(entry: object) -> bool:
    """Is it a message that needs no change, as almost all are? Others are looked at more closely."""
    if type(entry) is not dict or len(entry) != 2 or entry.get("role") not in ROLES:
        return False
    content = entry.get("content")
    return isinstance(content, str) and content.isascii() and bool(content) and not content.isspace()


def _message(entry: object, where: str) -> tuple[Message, list[Any]]:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is {shown(entry, 120)}, no {{'role': …, 'content': …}}.")
    present = {key: value for key, value in entry.items() if value is not None}
    if "from" in present and "value" in present and "role" not in present:
        role = SHAREGPT.get(str(present["from"]), present["from"])
        present = {**{k: v for k, v in present.items() if k not in ("from", "value")}, "content": present["value"]}
    else:
        role = present.get("role")
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise DataError(f"{where} has the role {shown(role, 60)}.{did_you_mean(str(role), ROLES)} Roles are {known}.")
    content, cells = _content(present.get("content", ""), f"{where} ({role})")
    calls = _calls(present.get("tool_calls") or [], f"{where} ({role})")
    if not content and not calls:
        raise DataError(f"{where} ({role}) is empty; give it a text, or leave the row out.")
    rest = {key: value for key, value in present.items() if key not in ("role", "content", "tool_calls")}
    return {"role": role, "content": content, **rest, **({"tool_calls": calls} if calls else {})}, cells


def _content(content: object, where: str) -> tuple[str | list[dict[str, Any]], list[Any]]:
    """A text, or parts with the cell of each medium; "" and blanks are no content."""
    if isinstance(content, str):
        _require_whole(content, where)
        return content if content.strip() else "", []
    if not isinstance(content, list | tuple):
        raise DataError(f"{where} says {shown(content, 120)}; expected a text or a list of parts.")
    parts, cells = list[dict[str, Any]](), list[Any]()
    for part in content:
        kind, cell = _part(part, where)
        if kind == "text":
            _require_whole(cell, where)
            parts.append({"type": "text", "text": cell})
        else:
            parts.append({"type": kind})
            cells.append(cell)
    if len(parts) == 1 and parts[0]["type"] == "text":
        return _content(parts[0]["text"], where)
    return parts, cells


def _part(part: object, where: str) -> tuple[str, Any]:
    """The kind of a part, and its text or the cell of its medium (None: the row has it in a column)."""
    present = {key: value for key, value in part.items() if value is not None} if isinstance(part, Mapping) else {}
    kind = str(present.get("type", ""))
    if "video" in kind:
        raise DataError(f"{where} holds a video, which nothing here reads; give pictures of it, or leave the row out.")
    if kind == "text" and isinstance(present.get("text"), str):
        return kind, present["text"]
    if kind in MEDIA:
        inside = [present[name] for name in INSIDE if name in present]
        return MEDIA[kind], _medium(inside[0], where) if inside else None
    raise DataError(f"{where} holds the part {shown(part, 120)}; parts are text, image and audio.")


def _medium(value: object, where: str) -> Any:
    """What can be decoded, of what stands inside a part: a path, bytes, {"bytes", "path"}, or a data: address."""
    if isinstance(value, Mapping) and ("url" in value or "data" in value):
        value = value.get("url") or f"data:;base64,{value.get('data')}"
    if not isinstance(value, str):
        return value
    if value.startswith(("http://", "https://")):
        raise DataError(f"{where} names {shown(value, 80)}; nothing is fetched: save the file and write its path.")
    if value.startswith("data:"):
        try:
            return base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise DataError(f"{where} holds a data: address that is no base64 ({error}).") from None
    return value.removeprefix("file://")


def _calls(cell: object, where: str) -> list[dict[str, Any]]:
    """Calls of functions as templates take them, their arguments an object: JSON text is read."""
    calls = without_nulls(cell)
    if not isinstance(calls, list):
        raise DataError(f"{where}: 'tool_calls' is {shown(cell, 120)}; expected a list of calls.")
    made = []
    for call in calls:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise DataError(
                f"{where} has the call {shown(call, 120)}; expected "
                "{'type': 'function', 'function': {'name': …, 'arguments': {…}}}."
            )
        function = {**inner, "arguments": _arguments(inner.get("arguments", {}), where)}
        made.append({**call, "function": function} if "function" in call else function)
    return made


def _arguments(value: object, where: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except ValueError as error:
            raise DataError(f"{where}: the arguments of a call are no JSON ({error}): {shown(value, 120)}") from None
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: the arguments of a call are {shown(value, 120)}; expected an object.")
    return value


def _require_whole(text: str, where: str) -> None:
    if half := half_character(text):
        raise DataError(f"{where} holds {half}, half of a character, which no model reads.")


def without_nulls(value: object) -> Any:
    """Return a value without entries that are null, at any depth: Arrow fills them in where rows differ."""
    if isinstance(value, Mapping):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list | tuple) else value


def read_tools(cell: object, where: str) -> tuple[dict[str, Any], ...]:
    """Return the descriptions of functions in a cell: a list of objects, or one as JSON text; () for an empty cell.

    Raises:
        DataError: JSON that cannot be read, or no list of objects.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell) if cell.strip() else []
        except ValueError as error:
            raise DataError(f"{where} is no JSON ({error}): {shown(cell, 120)}") from None
    tools = without_nulls(cell or [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{where} is {shown(cell, 120)}; expected a list of objects that describe functions.")
    return tuple(tools)


def read_transcript(text: str, where: str) -> Conversation:
    """Return the turns of an hh-rlhf text, without the blanks around them.

    Raises:
        DataError: it does not begin with a turn, or one is empty.
    """
    return read_messages([*_turns(text, where)], where)


def _turns(text: str, where: str) -> Iterator[dict[str, str]]:
    before, *rest = re.split(r"\n\n(Human|Assistant):", text)
    if before.strip() or not rest:
        raise DataError(f"{where} is no transcript, which begins with {OPENING!r}: {shown(text, 120)}")
    for mark, text_of_turn in zip(rest[::2], rest[1::2], strict=True):
        yield {"role": MARKS[mark], "content": text_of_turn.strip()}


def answer_text(messages: Sequence[Message], where: str) -> str:
    """Return the text of the last message, which is the answer; an `Answer` where a template is to write it.

    Raises:
        DataError: it is not an assistant's, or holds more than a text.
    """
    last = messages[-1]
    if last["role"] != "assistant":
        raise DataError(f"{where} ends with the {last['role']}'s turn; the last one is the answer, an assistant's.")
    if not isinstance(last["content"], str):
        raise DataError(f"{where}: the answer holds {shown(last['content'], 120)}; expected a text alone.")
    return Answer([last]) if any(last.get(key) for key in ("tool_calls", *THOUGHTS)) else last["content"]


__all__ = [
    "MEDIA",
    "OPENING",
    "Conversation",
    "answer_text",
    "is_messages",
    "read_messages",
    "read_tools",
    "read_transcript",
    "without_nulls",
]
