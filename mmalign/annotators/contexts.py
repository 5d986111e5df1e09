"""The same two outputs under two contexts that turn the preference round: rows that only the context decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.annotators._rows import Columns, Row, Skipped, each_row
from mmalign.core.options import must, refuse

__all__ = ["Contexts"]


@dataclass
class Contexts:
    """The prompt behind its context, and a second row, exchanged, behind the context that turns the preference round.

    Context-aware preference modelling (Pitis et al. 2024, arXiv 2407.14916): a reward model that reads the prompt alone
    is right in half of such rows, whatever it says. A row without the other context gives its first row alone.

    Args:
        context: the column with the context under which `chosen` is better.
        other: the column with the one under which `rejected` is.
        template: the prompt, with {context} and {prompt}.
    """

    context: str = "context"
    other: str = "other_context"
    template: str = "{context} {prompt}"

    def __post_init__(self) -> None:
        named = "{context}" in self.template and "{prompt}" in self.template
        refuse(must(named, "template: must name {context} and {prompt}."))

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """One or two rows of each of N."""
        return each_row(rows, self._both)

    def _both(self, row: Row) -> list[Columns]:
        better, worse = row.text("chosen"), row.text("rejected")
        made = [{**row.columns, "prompt": self._behind(row.text(self.context), row.prompt.text)}]
        if row.columns.get(self.other):
            other = self._behind(row.text(self.other), row.prompt.text)
            made.append({**row.columns, "prompt": other, "chosen": worse, "rejected": better})
        return made

    def _behind(self, context: str, prompt: str) -> str:
        return self.template.replace("{context}", context).replace("{prompt}", prompt)
