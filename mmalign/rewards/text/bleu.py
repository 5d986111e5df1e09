"""BLEU of one output against references, by sacrebleu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.core.options import AtLeastOne
from mmalign.rewards.parsing import Where
from mmalign.rewards.text._captions import SacreRule, library

__all__ = ["Bleu"]


@dataclass
class Bleu(SacreRule):
    """Sentence BLEU / 100 with exponential smoothing and effective order (Chen & Cherry 2014), in [0, 1].

    Args:
        column: of `Prompt.meta`: a reference, or a list of them.
        order: longest n-gram.
        lowercase: case does not count.
        tokenize: sacrebleu's tokenizer.
        where: the answer stands, see `parsing.answer_of`.
    """

    column: str = "references"
    order: AtLeastOne = 4
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
