"""How alike two texts are, token by token, in any embedding table: Mixed-R1's reward for open-ended answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.core.files import require_local
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import RowRule
from mmalign.rewards.columns import NeedsColumn, references_of
from mmalign.rewards.functional import bmas
from mmalign.rewards.models.embedding_table import EmbeddingTable, load_table
from mmalign.rewards.parsing import LONG, Unreadable, Where, answer_of, bounded

__all__ = ["Bmas"]


@dataclass
class Bmas(NeedsColumn, RowRule):
    """Bidirectional max-average similarity (`functional.bmas`), in [-1, 1]; of several references the best counts.

    It sees neither order nor repetition ("dog bites man" is "man bites dog"): pair it with `repetition`, and watch it
    with a metric that is not trained on. The table is a fixed one, never the policy's own while it learns.

    Args:
        checkpoint: a folder with safetensors and `tokenizer.json`; only its token embeddings are read. Of a language
            model or sentence encoder they know any text; of a small world's CLIP only its own words.
        tensor: the name of their matrix, where it is not a usual one.
        column: of `Prompt.meta`: a reference, or a list of them.
        centre: subtract the vocabulary's mean; without it unrelated texts score .3 to .5.
        reduce: the `mean` of both directions, or their `f1`.
        where: the answer stands, see `parsing.answer_of`.
    """

    checkpoint: str
    tensor: str = ""
    column: str = "references"
    centre: bool = True
    reduce: Literal["mean", "f1"] = "mean"
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (-1.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        require_local(self.checkpoint)

    @property
    def table(self) -> EmbeddingTable:
        """The embeddings, read on first use."""
        return load_table(self.checkpoint, self.tensor)

    def prepare(self) -> None:
        """Read the embeddings."""
        _ = self.table

    def fingerprint(self) -> str:
        """The digest of the table."""
        return self.table.fingerprint

    def judge(self, prompt: Prompt, output: str) -> float:
        """The similarity of one answer."""
        answer = self.table.rows(bounded(answer_of(output, self.where), LONG))
        if not len(answer):
            raise Unreadable("the answer has no word that the table knows")
        references = [self.table.rows(text) for text in references_of(prompt, self.column)]
        if not all(map(len, references)):
            raise ValueError(f"Prompt.meta['{self.column}'] holds no word that the table knows")
        centre = self.table.mean if self.centre else None
        return max(float(bmas(answer, reference, centre, self.reduce)) for reference in references)
