"""What caption metrics share: the optional libraries, texts cut into words, and rules against references."""

from __future__ import annotations

import importlib
import re
from typing import Any

from mmalign.core.errors import MissingExtra
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import RowRule
from mmalign.rewards.columns import NeedsColumn, references_of
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

_PUNCTUATION = re.compile(r"[^\w\s]")


def library(module: str, what: str) -> Any:
    """An optional module of the `caption` extra. MissingExtra if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(what, "caption") from None


def caption_words(text: str) -> str:
    """Lower case, punctuation dropped, single blanks: what PTB tokenisation leaves of a caption, without Java."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


class ReferenceRule(NeedsColumn, RowRule):
    """A rule of one text against the references in a column, which are read before anything is scored."""

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where a row has no reference."""
        references_of(prompt, self.column)


class SacreRule(ReferenceRule):
    """One that sacrebleu computes, in [0, 1]."""

    where: Where
    _metric: Any

    def judge(self, prompt: Prompt, output: str) -> float:
        """The score of one output, in [0, 1]."""
        answer = bounded(answer_of(output, self.where), LONG)
        return min(1.0, float(self._metric.sentence_score(answer, references_of(prompt, self.column)).score) / 100)
