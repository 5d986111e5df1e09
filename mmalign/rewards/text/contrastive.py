"""Nearer to its own reference than to others, in a text encoder: the semantic term of contrastive rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.options import Positive
from mmalign.core.protocols import TextEncoder
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.columns import distinct, references_of
from mmalign.rewards.encoders import SeesThroughEncoder, make_encoder, no_side
from mmalign.rewards.functional import contrastive_similarity
from mmalign.rewards.functional.contrast import Aggregate
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded, query

__all__ = ["Contrastive"]


@dataclass(frozen=True)
class Read:
    """What one row says, and what is right and wrong for it."""

    caption: str
    right: list[str]
    wrong: list[str]


@dataclass
class Contrastive(SeesThroughEncoder):
    """cos(e(answer), e(reference)) - aggregate cos(e(answer), e(negatives)), in [-2, 2]; a reconstruction.

    The term added to `sql_execution` in "Bridging the Semantic Gap: Contrastive Rewards for Multilingual Text-to-SQL";
    it tells apart queries that agree by accident. Let the rule dominate: `combine: {name: stratified, rule: …,
    model: …}`, or a weight of at most .3. A row without a negative is NOT_APPLICABLE.

    Args:
        encoder: of texts: a CLIP checkpoint, or an encoder's spec {name: …, options…}; required.
        column: of `Prompt.meta`: the reference (of several, the first).
        negatives: `batch`: the references of the other prompts of the batch; `column`: those in `negative_column`.
        negative_column: of `Prompt.meta`: a list of texts.
        aggregate: over negatives: `mean`, `max`, or `logsumexp` between them.
        temperature: of `logsumexp`.
        where: the answer stands: as in `parsing.answer_of`, or `sql` for its query.
    """

    encoder: str | dict[str, Any] = ""
    column: str = "answer"
    negatives: Literal["batch", "column"] = "batch"
    negative_column: str = "negatives"
    aggregate: Aggregate = "mean"
    temperature: Positive = 0.1
    where: Where | Literal["sql"] = "auto"
    modalities = frozenset({"text"})
    range = (-2.0, 2.0)
    differentiable = False

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature > 0, got {self.temperature}")
        encoder = make_encoder(self.encoder)
        if not isinstance(encoder, TextEncoder):
            raise no_side(TextEncoder, "embeds no texts")
        self.embedder: TextEncoder = encoder

    @property
    def needs(self) -> tuple[str, ...]:
        """The column of right texts, and that of wrong ones where `negatives` is "column"."""
        return (self.column, *([self.negative_column] if self.negatives == "column" else []))

    @property
    def batch_dependent(self) -> bool:
        """Do the other rows count? Then calls are neither split nor cached by row."""
        return self.negatives == "batch"

    @property
    def deterministic(self) -> bool:
        """Do equal rows score the same? Yes, as long as the other rows do not count."""
        return not self.batch_dependent

    def fingerprint(self) -> str:
        """Names the encoder's weights and preprocessing: a part of cache keys."""
        return self.embedder.fingerprint()

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        read, scores = read_rows(self._read, rollout, self.range[0], self.needs)
        if read:
            rows = torch.tensor(list(read))
            value = self._values(list(read.values()), rollout.group[rows].tolist())
            scores.value[rows] = value
            scores.status[rows[value.isnan()]] = int(Status.NOT_APPLICABLE)
        return scores

    def _read(self, prompt: Prompt, output: str) -> Read:
        right = references_of(prompt, self.column)
        negatives = references_of(prompt, self.negative_column) if self.negatives == "column" else []
        answer = query(output) if self.where == "sql" else bounded(answer_of(output, self.where), LONG)
        return Read(answer, right, negatives)

    def _values(self, rows: list[Read], group: list[int]) -> Float[Tensor, " K"]:
        texts, own = [row.caption for row in rows], [row.right[0] for row in rows]
        each = [row.wrong for row in rows]
        if self.negatives == "batch":
            each = [_of_others(rows, group, i) for i in range(len(rows))]
        others, present = distinct(each)
        with torch.no_grad():
            embedded = self.embedder.texts([*texts, *own, *others]).float().cpu()
        answers, right, negatives = embedded.split([len(texts), len(own), len(others)])
        return contrastive_similarity(
            (answers * right).sum(1), answers @ negatives.T, present, self.aggregate, self.temperature
        )


def _of_others(rows: list[Read], group: list[int], row: int) -> list[str]:
    """The first references of the rows of other groups, without the row's own."""
    others = {other.right[0] for other, number in zip(rows, group, strict=True) if number != group[row]}
    return sorted(others - set(rows[row].right))
