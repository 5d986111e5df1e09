"""BLEU of one output against references, by sacrebleu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards._captions import library
from mmalign.rewards._rows import judge_rows
from mmalign.rewards._texts import references_of
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Bleu"]


@dataclass
class Bleu:
    """Sentence BLEU / 100 with exponential smoothing and effective order (Chen & Cherry 2014), in [0, 1].

    Args:
        column: of `Prompt.meta`: a reference, or a list of them.
        order: longest n-gram.
        lowercase: case does not count.
        tokenize: sacrebleu's tokenizer.
        where: the answer stands, see `parsing.answer_of`.
    """

    column: str = "references"
    order: int = 4
    lowercase: bool = True
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        made = library("sacrebleu.metrics", "reward 'bleu'").BLEU
        self._metric = made(
            lowercase=self.lowercase, tokenize=self.tokenize, max_ngram_order=self.order, effective_order=True
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return (self.column,)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        return judge_rows(self.judge, rollout, self.range[0], self.needs)

    def judge(self, prompt: Prompt, output: str) -> float:
        """The score of one output."""
        said = bounded(answer_of(output, self.where), LONG)
        return min(1.0, float(self._metric.sentence_score(said, references_of(prompt, self.column)).score) / 100)
