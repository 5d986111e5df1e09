"""What a row of preferences compares, by what its columns hold; the formats are those of TRL's data utilities.

| form | columns | the prompt |
|---|---|---|
| plain | prompt, chosen, rejected: texts | the text |
| messages | chosen, rejected: lists of messages; prompt: none, a text or a list | all turns before the last |
| transcript | chosen, rejected: "\\n\\nHuman: … \\n\\nAssistant: …", no prompt | all turns before the last |
| implicit | chosen, rejected: texts that begin alike, no prompt | what both begin with |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmalign.core.conversation import Message, message_text
from mmalign.core.errors import DataError, shown
from mmalign.data.asking import require_form
from mmalign.data.messages import OPENING, Conversation, answer_text, is_messages, read_messages, read_transcript
from mmalign.data.table import Table

Form = Literal["plain", "messages", "transcript", "implicit"]
UNPAIRED = ("completion", "label")


@dataclass(frozen=True)
class Compared:
    """A row's prompt, a text or a conversation, and its two answers."""

    prompt: str | Conversation
    chosen: str
    rejected: str


def form_of(table: Table, columns: tuple[str, str, str]) -> Form:
    """Return the form of a table whose outputs are no media, by its first row.

    Raises:
        DataError: rows of another kind than comparisons.
    """
    prompt, chosen, rejected = columns
    if all(name in table.columns for name in UNPAIRED) and not {chosen, rejected} & {*table.columns}:
        raise DataError(
            f"{table.file}: holds unpaired rows (completion, label), and no objective here learns from one judged "
            "answer at a time: `sft` with data: {name: conversations, …} imitates those of a true label; for dpo, pair "
            "the answers of each prompt."
        )
    table.require(chosen, rejected)
    row = table.typical(chosen, rejected)
    first = [row.get(column) for column in columns]
    if any(map(is_messages, first)):
        return "messages"
    if prompt in table.columns:
        return "plain"
    if isinstance(first[1], str) and isinstance(first[2], str):
        if first[1].startswith(OPENING):
            return "transcript"
        if _beginning(first[1], first[2]).strip():
            return "implicit"
    table.require(prompt)
    return "plain"


def compared(table: Table, at: int, columns: tuple[str, str, str], form: Form) -> Compared:
    """Return what row `at` compares.

    Raises:
        DataError: answers to different prompts, a conversation that does not end with an answer, or a column of mixed
            forms; in one sentence.
    """
    prompt, chosen, rejected = columns
    if form == "plain":
        return Compared(table.text(at, prompt), table.text(at, chosen), table.text(at, rejected))
    if form == "implicit":
        return _implicit(table, at, chosen, rejected)
    heads, answers = list[Conversation](), list[str]()
    for column in (chosen, rejected):
        where, cell = f"{table.place(at)}: '{column}'", table.row(at).get(column)
        if form == "transcript":
            whole = read_transcript(table.text(at, column), where)
        else:
            require_form(table, at, column, cell)
            whole = read_messages(cell if is_messages(cell) else _answer(table.text(at, column)), where)
        answers.append(answer_text(whole.messages, where))
        heads.append(Conversation(whole.messages[:-1], whole.cells))
    return Compared(_common(table, at, columns, heads), *answers)


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _implicit(table: Table, at: int, chosen: str, rejected: str) -> Compared:
    """TRL's: the longest text that both begin with, without a blank at its end, which goes to the answers."""
    texts = table.text(at, chosen), table.text(at, rejected)
    common = _beginning(*texts)
    if not common.strip() or common in texts:
        raise DataError(
            f"{table.place(at)}: '{chosen}' and '{rejected}' begin with no prompt that both answer differently: "
            f"{shown(texts[0], 80)} and {shown(texts[1], 80)}."
        )
    return Compared(common, *(text[len(common) :] for text in texts))


def _beginning(a: str, b: str) -> str:
    """What both begin with, without a blank at its end."""
    length = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    return a[:length].removesuffix(" ")


def _common(table: Table, at: int, columns: tuple[str, str, str], heads: Sequence[Conversation]) -> Conversation:
    """What both sides answer: the prompt's column, or the turns before both answers, which must be the same."""
    place, (prompt, *sides) = table.place(at), columns
    if heads[0] != heads[1]:
        raise DataError(f"{place}: {_difference(sides, [head.messages for head in heads])}")
    head, cell = heads[0], table.row(at).get(prompt)
    if not is_messages(cell):
        if cell is None and head.messages:
            return head
        text = table.text(at, prompt)
        if not head.messages:
            return Conversation(({"role": "user", "content": text},))
        if text.strip() not in [message_text(message).strip() for message in head.messages]:
            raise DataError(f"{place}: '{prompt}' is {shown(text, 80)}, which is no turn of '{sides[0]}'.")
        return head
    require_form(table, at, prompt, cell)
    whole = read_messages(cell, f"{place}: '{prompt}'")
    if head.messages and head != whole:
        raise DataError(f"{place}: {_difference([prompt, sides[0]], [whole.messages, head.messages])}")
    return whole


def _difference(columns: Sequence[str], heads: Sequence[Sequence[Message]]) -> str:
    """A sentence on the first turn in which two conversations differ."""
    at = next((i for i, (a, b) in enumerate(zip(*heads, strict=False)) if a != b), min(map(len, heads)))
    turns: list[Any] = [message_text(head[at]) if at < len(head) else "its end" for head in heads]
    return (
        f"'{columns[0]}' and '{columns[1]}' answer different prompts: turn {at + 1} is {shown(turns[0], 80)} and "
        f"{shown(turns[1], 80)}."
    )


__all__ = ["Compared", "Form", "compared", "form_of"]
