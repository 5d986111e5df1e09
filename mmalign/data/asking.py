"""Prompts of rows: of a text, or of a conversation with the pictures and sounds that its places stand for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmalign.core.conversation import Message, last_user_text, places_in
from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from mmalign.data.lazy_media import LazyMedia, kind_of, media_cells, row_media
from mmalign.data.messages import Conversation, answer_text, is_messages, read_messages, read_tools
from mmalign.data.table import Table
from mmalign.media.kinds import NOUNS

SEVERAL = {"image": ("images", "image"), "audio": ("audios", "audio")}  # columns that TRL and the Hub name so
VIDEOS = ("videos", "video")

log = logging.getLogger("mmalign")


@dataclass(frozen=True)
class Asking:
    """Which columns say what a row asks.

    Args:
        column: the text or the conversation.
        media: of what it is about, by kind; "" for none.
        tools: of the functions that a conversation may call; "" for none.
    """

    column: str
    media: Mapping[str, str]
    tools: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return (self.column, *self.media.values(), *([self.tools] if self.tools else []))

    @property
    def about(self) -> list[str]:
        """The columns of media."""
        return [column for column in self.media.values() if column]

    def for_conversations(self, table: Table) -> Asking:
        """Return the same with media and tools where conversations have them by convention.

        Raises:
            DataError: the file has a column of videos.
        """
        if videos := [column for column in VIDEOS if column in table.columns]:
            raise DataError(
                f"{table.file}: has a column '{videos[0]}', and nothing here reads videos; give pictures of them in "
                "'images', or drop the column."
            )
        if "chat_template_kwargs" in table.columns:
            raise DataError(
                f"{table.file}: has a column 'chat_template_kwargs', and variables of the template are the same for "
                "all rows here; set adapter.chat_options, and give the column another name by data.columns."
            )
        media = {
            kind: self.media.get(kind) or next((column for column in names if column in table.columns), "")
            for kind, names in SEVERAL.items()
        }
        tools = self.tools or ("tools" if "tools" in table.columns else "")
        return replace(self, media=media, tools=tools)

    def say_unread(self, table: Table, others: Sequence[str] = ()) -> None:
        """Say which columns, called as those of media are, hold some that no option names; not of `others`."""
        for kind, names in SEVERAL.items():
            for column in names:
                if self.media.get(kind) or column not in table.columns or column in (*self.columns, *others):
                    continue
                cells = media_cells(table, 0, column)
                if cells and kind_of(cells[0], table.folder) == kind:
                    log.warning(
                        "%s: the %ss in '%s' are no part of the prompts; set data.%s: %s to show them to the model.",
                        *(table.file, NOUNS[kind], column, kind, column),
                    )

    def prompt(self, table: Table, at: int, meta: Mapping[str, Any]) -> Prompt:
        """Return what row `at` asks; DataError where it asks nothing that can be answered."""
        cell = table.row(at).get(self.column)
        require_form(table, at, self.column, cell)
        if not is_messages(cell):
            text = table.text(at, self.column)
            return Prompt(text, row_media(table, at, self.media), meta, table.place(at))
        conversation = self.placed(table, at, read_messages(cell, f"{table.place(at)}: '{self.column}'"))
        return self.of_conversation(table, at, conversation, meta)

    def answered(self, table: Table, at: int) -> tuple[Conversation, str]:
        """Return the conversation of row `at` without its last turn, and what that says.

        Raises:
            DataError: it does not end with an answer.
        """
        where = f"{table.place(at)}: '{self.column}'"
        whole = self.placed(table, at, read_messages(table.row(at).get(self.column), where))
        answer = answer_text(whole.messages, where)
        return Conversation(whole.messages[:-1], whole.cells), answer

    def placed(self, table: Table, at: int, conversation: Conversation) -> Conversation:
        """Return a conversation whose places all have their cell.

        Where it has no places for the media of the row's columns, they stand before the first text of the user.

        Raises:
            DataError: more or fewer media than places.
        """
        if not conversation.cells and not self.about:
            return conversation
        messages, cells, place = conversation.messages, list(conversation.cells), table.place(at)
        for kind, column in self.media.items():
            beside = media_cells(table, at, column) if column else []
            free = [i for i, name in enumerate(places_in(messages)) if name == kind and cells[i] is None]
            if beside and not free:
                messages, first = _led(messages, kind, len(beside), place)
                cells[first:first] = beside
            elif len(free) != len(beside):
                noun, where = NOUNS[kind], f"column '{column}'" if column else "its columns"
                raise DataError(
                    f"{place}: the conversation has places for {len(free)} {noun}s, and {where} {len(beside)}; give "
                    "one for each place."
                )
            else:
                for i, cell in zip(free, beside, strict=True):
                    cells[i] = cell
        return Conversation(messages, tuple(cells))

    def of_conversation(self, table: Table, at: int, conversation: Conversation, meta: Mapping[str, Any]) -> Prompt:
        """Return the prompt of a conversation that was `placed`; one message of text is a plain prompt.

        Raises:
            DataError: it ends with another than the user or a tool, or the user says nothing in words.
        """
        messages, place = conversation.messages, table.place(at)
        if not messages or messages[-1]["role"] not in ("user", "tool"):
            role = messages[-1]["role"] if messages else "nobody"
            raise DataError(
                f"{place}: what is asked ends with the turn of {role}; the model answers a user's or a tool's. A "
                "conversation with its answer is read as 'messages' (data.columns: {messages: …})."
            )
        text = last_user_text(messages)
        if not text.strip():
            raise DataError(f"{place}: no text of the user's to answer; the last user's turn needs one.")
        names = places_in(messages)
        cells = dict(zip(_numbered(names), conversation.cells, strict=False))
        media = LazyMedia(cells, table.folder, place, table.ground) if cells else {}
        tools = read_tools(table.row(at).get(self.tools), f"{place}: '{self.tools}'") if self.tools else ()
        plain = not tools and _is_plain(messages)
        return Prompt(text, media, meta, place, messages=() if plain else messages, tools=tools)


def holds_messages(table: Table, column: str) -> bool:
    """Does a column hold conversations, as its first row shows?"""
    return is_messages(table.typical(column).get(column))


def require_form(table: Table, at: int, column: str, cell: object) -> None:
    """Raise DataError for a conversation in a column of texts, or a text in one of conversations."""
    if isinstance(cell, str) or is_messages(cell):
        first = holds_messages(table, column)
        if is_messages(cell) != first:
            kinds = ("a text", "a conversation")
            raise DataError(
                f"{table.place(at)}: '{column}' is {kinds[not first]}, and {kinds[first]} in the first row; a column "
                "holds one of them."
            )


def _led(messages: Sequence[Message], kind: str, count: int, place: str) -> tuple[tuple[Message, ...], int]:
    """Messages whose first one of the user begins with `count` places, and how many places come before these."""
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise DataError(f"{place}: no turn of the user's, which the row's {NOUNS[kind]}s would belong to.")
    content = messages[first]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    led = {**messages[first], "content": [*[{"type": kind}] * count, *parts]}
    return (*messages[:first], led, *messages[first + 1 :]), len(places_in(messages[:first]))


def _numbered(names: Sequence[str]) -> list[str]:
    """image, image_2, image_3, …: a name for each place, by kind."""
    numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if number == 1 else f"{name}_{number}" for name, number in zip(names, numbers, strict=True)]


def _is_plain(messages: Sequence[Message]) -> bool:
    """Is it what a prompt of a text says anyhow: one turn of the user, the media of one kind before the text?"""
    if len(messages) != 1 or messages[0].keys() != {"role", "content"}:
        return False
    content = messages[0]["content"]
    if isinstance(content, str):
        return True
    kinds = [part["type"] for part in content]
    return kinds[-1:] == ["text"] and "text" not in kinds[:-1] and len(set(kinds[:-1])) == 1


__all__ = ["Asking", "holds_messages", "require_form"]
