"""chrF of one output against references, by sacrebleu: characters, so it needs no word boundaries."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.options import AtLeastOne, Count
from mmalign.rewards.parsing import Where
from mmalign.rewards.text._captions import SacreRule, library

__all__ = ["Chrf"]


@dataclass
class Chrf(SacreRule):
    """chrF / 100 (Popović 2015), in [0, 1]; `word_order: 2` makes it chrF++.

    Args:
        column: of `Prompt.meta`: a reference, or a list of them.
        char_order: longest character n-gram.
        word_order: longest word n-gram.
        beta: weight of recall.
        lowercase: case does not count.
        where: the answer stands, see `parsing.answer_of`.
    """

    column: str = "references"
    char_order: AtLeastOne = 6
    word_order: Count = 0
    beta: AtLeastOne = 2
    lowercase: bool = True
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        made = library("sacrebleu.metrics", "reward 'chrf'").CHRF
        self._metric = made(
            char_order=self.char_order, word_order=self.word_order, beta=self.beta, lowercase=self.lowercase
        )
