"""Answers of text to imitate: conversations that end with one, or prompts with their completions."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmalign.core.errors import DataError, shown
from mmalign.data.asking import Asking, holds_messages
from mmalign.data.conversation_rows import ConversationRows, Turns
from mmalign.data.file_source import FileSource
from mmalign.data.messages import is_messages
from mmalign.data.table import LOOKED_AT, Table

__all__ = ["Conversations"]

WHOLE = ("messages", "conversations")  # columns of conversations with their answer

log = logging.getLogger("mmalign")


@dataclass
class Conversations(FileSource[ConversationRows]):
    """Examples of text, for `sft`: rows of `messages`, or of `prompt` and `completion`, texts or messages.

    Roles are system, user, assistant and tool; contents are texts, or parts with pictures inside. The columns `image`
    or `images` hold the pictures of the places in a conversation, and `tools` the functions that it may call. A
    `completion` that is a list of texts (the captions of a picture) is an example for each of them.

    Of rows with `completion` and a `label` that is true or false (unpaired judgements), the true ones are imitated.

    Args:
        imitate: "last" answer of each conversation; "all" turns of the assistant, together one output whose other
            turns are read and not learned, where the chat template allows it; or "each" of them, an example behind the
            turns before it.
    """

    imitate: Literal["last", "all", "each"] = "last"

    def prompt_column(self) -> str:
        """Return the column that holds the text of the prompt."""
        return "prompt"

    def of(self, table: Table) -> ConversationRows:
        """Return the examples of a table that was read, in its order."""
        whole = next((name for name in WHOLE if name in table.columns), "")
        if not whole and not {"prompt", "completion"} <= {*table.columns}:
            raise DataError(
                f"{table.file}: needs a column 'messages', or 'prompt' and 'completion'; name yours by data.columns, "
                f"e.g. {{messages: …}}. Columns found: {', '.join(table.columns)}. First row: {shown(table.first)}"
            )
        asking = Asking(whole or "prompt", self.media_columns())
        if whole or holds_messages(table, asking.column):
            asking = asking.for_conversations(table)
        asking.say_unread(table)
        table.require(*asking.about)
        rows = ConversationRows(table, self._rows(table, whole), asking, "" if whole else "completion")
        if self.imitate != "last" and not whole:
            raise DataError(
                f"{table.file}: imitate: {self.imitate} is of whole conversations, and there is no 'messages'."
            )
        if self.imitate == "all":
            return replace(rows, whole_turns=True)
        if self.imitate == "each":
            return self._of(rows, Turns.of_all(rows))
        several = table.typical(rows.completion).get(rows.completion)
        return self._of(rows, Turns.of_lists(rows)) if isinstance(several, list) and not is_messages(several) else rows

    def _of(self, rows: ConversationRows, turns: Turns) -> ConversationRows:
        """The same table with an example for each of `turns`."""
        return ConversationRows(rows.table, range(len(turns.row)), rows.asking, rows.completion, turns)

    def _rows(self, table: Table, whole: str) -> Sequence[int]:
        """Those that are read: of judged completions, the good ones."""
        rows = range(self._count(table))
        if whole or not any(isinstance(table.row(at).get("label"), bool) for at in rows[:LOOKED_AT]):
            return rows
        good = array("q", (at for at in rows if table.row(at).get("label") is True))
        if not len(good):
            raise DataError(f"{table.file}: 'label' is true in no row, and only good completions are imitated.")
        if len(good) < len(rows):
            log.warning(
                "%s: by 'label', %d of %d completions are no good and are left out.",
                *(table.file, len(rows) - len(good), len(rows)),
            )
        return good if len(good) < len(rows) else rows
