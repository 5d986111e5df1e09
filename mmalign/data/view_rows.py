"""Prompts and other wordings of them as one sequence, dealt in whole sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor
from mmalign.core.texts import unpacked
from mmalign.core.types import Prompt
from mmalign.data.lazy_rows import IndexedRows
from mmalign.data.row_kinds import RowKind

__all__ = ["VIEW_OF", "ViewRows", "wordings_of"]

VIEW_OF = "view_of"  # the fact that the wordings of one row share


def wordings_of(prompt: Prompt, column: str, count: int) -> list[str]:
    """The first `count` other wordings in a column of a prompt.

    Raises:
        ValueError: it holds fewer, or something that is no text.
    """
    value = unpacked(prompt.meta.get(column), f"'{column}'", begins=("[",))
    texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"'{column}' holds something that is no text")
    if prompt.converses:
        raise ValueError("a conversation has no other wordings")
    if len(texts) < count:
        raise ValueError(f"'{column}' holds {len(texts)} of {count} other wordings")
    return list(texts[:count])


@dataclass(frozen=True, eq=False)
class ViewRows(IndexedRows[Prompt]):
    """Each of `rows` and behind it `others` other wordings: row i is wording i mod (others + 1) of its question.

    `instead` has some of them by their place, as where too long ones were cut.
    """

    rows: Sequence[Prompt]
    column: str
    others: int
    instead: Mapping[int, Prompt] = field(default_factory=dict)
    _order: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    row_kind: ClassVar[RowKind] = "prompts"

    @property
    def together(self) -> int:
        """How many rows behind one another share a batch."""
        return self.others + 1

    def __len__(self) -> int:
        return len(self.rows) * self.together

    def made(self, index: int) -> Prompt:
        """Return row `index`."""
        index = range(len(self))[index]
        if index in self.instead:
            return self.instead[index]
        number, view = divmod(index, self.together)
        prompt = self.rows[number]
        text = prompt.text if view == 0 else wordings_of(prompt, self.column, self.others)[view - 1]
        return replace(prompt, text=text, meta={**prompt.meta, VIEW_OF: number})

    def prompts(self) -> Sequence[Prompt]:
        """Return the rows themselves."""
        return self

    def place_at(self, position: int, seed: int) -> tuple[int, int]:
        """Return which row comes at a `position` of the run, and in which pass: sets are shuffled, never cut."""
        drawn, view = divmod(position, self.together)
        epoch, offset = divmod(drawn, len(self.rows))
        if self._order.get("of") != (seed, epoch):
            order: Tensor = torch.randperm(len(self.rows), generator=stream(seed, "shuffle", epoch))
            self._order.update(of=(seed, epoch), order=order)
        return int(self._order["order"][offset]) * self.together + view, epoch

    def keeping(self, places: Sequence[int], instead: Mapping[int, Prompt] | None = None) -> ViewRows:
        """Return the questions all of whose wordings are at `places`, those of `instead` in the place of their own."""
        kept, changed = set(places), dict(instead or {})
        whole = [
            number
            for number in range(len(self.rows))
            if all(number * self.together + view in kept for view in range(self.together))
        ]
        moved = {
            new * self.together + view: self.made(old) if old not in changed else changed[old]
            for new, number in enumerate(whole)
            for view in range(self.together)
            if (old := number * self.together + view) in changed or old in self.instead
        }
        rows = [self.rows[number] for number in whole]
        return replace(self, rows=rows, instead=moved)
