"""Answers to imitate in the rows of a table: the last turn of a conversation, each of the model's, or a completion."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmalign.core.conversation import Answer, conversation_key, places_in
from mmalign.core.errors import DataError, shown
from mmalign.core.types import Example, Prompt
from mmalign.data.asking import Asking
from mmalign.data.lazy_media import LazyMedia
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.messages import Conversation, answer_text, is_messages, read_messages
from mmalign.data.row_kinds import RowKind
from mmalign.data.table_rows import TableRows

__all__ = ["ConversationRows", "Turns"]


@dataclass(frozen=True, eq=False)
class Turns:
    """Which answer of which row an example imitates, where it is not the last of each."""

    row: array[int]
    turn: array[int]  # its place among the messages, or in a list of completions

    @classmethod
    def of_all(cls, rows: ConversationRows) -> Turns:
        """Return every assistant's turn of `rows`; of a row that cannot be read, none but its last."""
        places, numbers = array("q"), array("l")
        for at in rows.rows:
            try:
                messages = rows.whole(at).messages
            except DataError:  # told with all other faults of the rows
                messages = ()
            turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"] or [-1]
            places.extend([at] * len(turns))
            numbers.extend(turns)
        return cls(places, numbers)

    @classmethod
    def of_lists(cls, rows: ConversationRows) -> Turns:
        """Return every completion of rows that have lists of them; of a row with another cell, one."""
        places, numbers = array("q"), array("l")
        for at in rows.rows:
            cell = rows.table.row(at).get(rows.completion)
            count = len(cell) if isinstance(cell, list) else 1
            places.extend([at] * max(count, 1))
            numbers.extend(range(max(count, 1)))
        return cls(places, numbers)


@dataclass(frozen=True, eq=False)
class ConversationRows(TableRows[Example]):
    """Some rows of a table as examples of text, made when they are indexed.

    `rows` are places in the table, or, with `turns`, numbers of these.
    """

    row_kind: ClassVar[RowKind] = "examples"
    kind: ClassVar[str] = "text"
    asking: Asking
    completion: str = ""  # column of the answer; "": it is in the conversation
    turns: Turns | None = None
    whole_turns: bool = False  # all turns of the assistant are one answer

    def prompts(self) -> Sequence[Prompt]:
        """Return the prompt of every row; nothing is decoded."""
        return LazyRows(lambda at: self.made(at).prompt, self.rows)

    def units(self) -> Sequence[Any]:
        """Return what rows are told apart by: what they are about, or all words of their conversation or prompt."""
        return LazyRows(self._unit, self.rows)

    def _unit(self, at: int) -> Prompt | str:
        prompt = self.made(at).prompt
        if len(prompt.media):
            return prompt
        if self.completion or not (self.turns or self.whole_turns):
            return prompt.question
        return conversation_key(self.whole(self.turns.row[at] if self.turns else at).messages)

    def whole(self, at: int) -> Conversation:
        """Return the conversation of row `at` of the table, its media placed; DataError where it is none."""
        cell, where = self.table.row(at).get(self.asking.column), f"{self.table.place(at)}: '{self.asking.column}'"
        return self.asking.placed(self.table, at, read_messages(cell, where))

    def made(self, at: int) -> Example:
        """Return the example `at`.

        Raises:
            DataError: a conversation that does not end with an answer, or with another than a text.
        """
        row = at if self.turns is None else self.turns.row[at]
        meta = self.table.facts(row, (*self.asking.columns, self.completion))
        if self.completion:
            number = 0 if self.turns is None else self.turns.turn[at]
            return Example(self.asking.prompt(self.table, row, meta), self._completion(row, number))
        place, whole = f"{self.table.place(row)}: '{self.asking.column}'", self.whole(row)
        last = len(whole.messages) - 1 if self.turns is None or self.turns.turn[at] < 0 else self.turns.turn[at]
        if self.turns is None and self.whole_turns:
            return self._all_turns(row, whole, meta, place)
        answer = answer_text(whole.messages[: last + 1], place)
        before = Conversation(whole.messages[:last], whole.cells)
        return Example(self.asking.of_conversation(self.table, row, before, meta), answer)

    def _all_turns(self, row: int, whole: Conversation, meta: Mapping[str, Any], place: str) -> Example:
        """All turns from the assistant's first one on, as one answer; one turn of text alone is that text."""
        messages, last = whole.messages, answer_text(whole.messages, place)
        first = next(number for number, message in enumerate(messages) if message["role"] == "assistant")
        if places_in(messages[first:]):
            raise DataError(f"{place} shows something behind its first answer; set imitate: each, or last.")
        before = Conversation(messages[:first], whole.cells)
        answer = last if first == len(messages) - 1 else Answer(messages[first:])
        return Example(self.asking.of_conversation(self.table, row, before, meta), answer)

    def _completion(self, row: int, number: int) -> str:
        cell, where = self.table.row(row).get(self.completion), f"{self.table.place(row)}: '{self.completion}'"
        if isinstance(cell, list) and not is_messages(cell):
            if number < len(cell) and isinstance(text := cell[number], str) and text.strip():
                return text
            raise DataError(f"{where} is {shown(cell, 120)}; expected texts.")
        if not is_messages(cell):
            return self.table.text(row, self.completion)
        messages = read_messages(cell, where).messages
        if len(messages) > 1:
            raise DataError(f"{where} has {len(messages)} turns; the answer is one, those before it are the prompt.")
        return answer_text(messages, where)

    def fault_at(self, at: int) -> str:
        """Return why example `at` cannot be read, as far as headers show; "" if it can."""
        try:
            media = self.made(at).prompt.media
        except DataError as error:
            return str(error)
        return next(iter(media.faults()), "") if isinstance(media, LazyMedia) else ""

    def faults(self) -> list[str]:
        """Return what keeps rows from being read; of files, headers are."""
        return [fault for at in self.rows if (fault := self.fault_at(at))]
