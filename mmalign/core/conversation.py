"""Conversations as chat templates take them: messages of a role and a content, before the answer that is asked for.

A message is {"role": "system", "content": "…"}. Roles are those of the templates: system, user, assistant, tool. The
content is a text, or a list of parts, {"type": "text", "text": "…"} and {"type": "image"} (a place for the next of the
prompt's media). An assistant's message may hold "tool_calls".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # where templates look for what comes before the answer
ROLES = ("system", "developer", "user", "assistant", "tool")


class Answer(str):
    """Given turns that only a chat template can write: the assistant's, with calls of tools, and what is between them.

    As a text it is what people read. `turns` are messages; the first and the last are the assistant's.
    """

    turns: tuple[Message, ...]

    def __new__(cls, turns: Sequence[Message]) -> Answer:
        """Make the answer of these turns."""
        made = super().__new__(cls, _legible(turns[0]) if len(turns) == 1 else transcript(turns))
        made.turns = tuple(turns)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.turns,)


def user_turn(text: str) -> Message:
    """Return the message of a user who says `text`."""
    return {"role": "user", "content": text}


def message_text(message: Message) -> str:
    """Return what a message says, its parts of text in lines of their own; "" where it says nothing in words."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def last_user_text(messages: Sequence[Message]) -> str:
    """Return what the user said last; "" where no message is a user's."""
    return next((message_text(message) for message in reversed(messages) if message["role"] == "user"), "")


def places_in(messages: Sequence[Message]) -> list[str]:
    """Return the kind of each place for a medium, "image" or "audio", in order."""
    contents = [message["content"] for message in messages if isinstance(message.get("content"), list | tuple)]
    return [part["type"] for content in contents for part in content if part["type"] != "text"]


def conversation_key(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a conversation as JSON, which is equal for equal ones. Keys stay in their order, which templates write."""
    whole = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
    return json.dumps(whole, ensure_ascii=False, default=repr)


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as people read it: a line "role: text" for each message, media in brackets."""
    return "\n".join(f"{message['role']}: {_legible(message)}" for message in messages)


def _legible(message: Message) -> str:
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content)
    pieces = [part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in parts]
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    return " ".join([*pieces, *(f"[calls {json.dumps(call, ensure_ascii=False, default=repr)}]" for call in calls)])


def shown_with(messages: Sequence[Message], place: str) -> tuple[Message, ...]:
    """Return `messages` with one more place for a medium of the kind `place` at the end of the last message."""
    last = messages[-1]
    content = last.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return *messages[:-1], {**last, "content": [*parts, {"type": place}]}


def without_oldest(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return `messages` from their second user's message on, behind what the system says; () where there is none."""
    system = [message for message in messages if message["role"] in ROLES[:2]]
    turns = [message for message in messages if message["role"] not in ROLES[:2]]
    begins = [number for number, message in enumerate(turns) if message["role"] == "user"]
    return (*system, *turns[begins[1] :]) if len(begins) > 1 else ()


__all__ = [
    "ROLES",
    "THOUGHTS",
    "Answer",
    "Message",
    "conversation_key",
    "last_user_text",
    "message_text",
    "places_in",
    "shown_with",
    "transcript",
    "user_turn",
    "without_oldest",
]
