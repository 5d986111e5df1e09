"""CIDEr-D of one caption against references, by pycocoevalcap's scorer, with document frequencies of a fixed corpus."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmalign.core.errors import DataError
from mmalign.core.files import require_local
from mmalign.core.options import Positive
from mmalign.core.texts import read_text, text_lines
from mmalign.core.types import Prompt
from mmalign.rewards.columns import references_of
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded
from mmalign.rewards.text._captions import ReferenceRule, caption_words, library

__all__ = ["Cider"]

_MODULE = "pycocoevalcap.cider.cider_scorer"


@dataclass
class Cider(ReferenceRule):
    """CIDEr-D (Vedantam et al. 2015), in [0, 10]. Words are lower-cased without punctuation; no Java.

    Document frequencies come from `corpus` alone: those of a batch would change with it, and of one picture all are 0.

    Args:
        corpus: .jsonl, one picture a line, its references in `column`; or .txt, one caption a line, each a picture.
        column: of `Prompt.meta`: a reference, or a list of them.
        sigma: of the Gaussian length penalty.
        where: the answer stands, see `parsing.answer_of`.
    """

    corpus: str
    column: str = "references"
    sigma: Positive = 6.0
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (0.0, 10.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        require_local(self.corpus)
        library(_MODULE, "reward 'cider'")

    def judge(self, prompt: Prompt, output: str) -> float:
        """The score of one caption."""
        caption = caption_words(bounded(answer_of(output, self.where), LONG))
        references = [caption_words(text) for text in references_of(prompt, self.column)]
        frequency, pictures = self.statistics
        scorer = library(_MODULE, "reward 'cider'").CiderScorer(caption, references, sigma=self.sigma)
        scorer.document_frequency = frequency
        # The scorer takes the corpus' size from its own list, and scores as many pictures as it has captions for: one.
        scorer.crefs = scorer.crefs + [[]] * (pictures - 1)
        return float(scorer.compute_cider()[0])

    @cached_property
    def statistics(self) -> tuple[Counter[tuple[str, ...]], int]:
        """In how many pictures each n-gram occurs, and how many there are."""
        cook = library(_MODULE, "reward 'cider'").precook
        pictures = self._pictures()
        frequency: Counter[tuple[str, ...]] = Counter()
        for references in pictures:
            frequency.update({ngram for text in references for ngram in cook(caption_words(text))})
        return frequency, len(pictures)

    def fingerprint(self) -> str:
        """The digest of the corpus."""
        frequency, pictures = self.statistics
        return hashlib.sha256(f"{pictures} {sorted(frequency.items())}".encode()).hexdigest()[:16]

    def _pictures(self) -> list[list[str]]:
        path = require_local(self.corpus)
        if path.suffix == ".txt":
            pictures = [[line] for _, line in text_lines(path)]
        else:
            lines = [line for line in read_text(path).split("\n") if line.strip()]
            pictures = [self._references(line, f"{path}, row {n}") for n, line in enumerate(lines)]
        if len(pictures) < 2:
            raise DataError(f"{path}: holds {len(pictures)} pictures; of fewer than two every word is as common.")
        return pictures

    def _references(self, line: str, place: str) -> list[str]:
        try:
            row: Any = json.loads(line)
            return references_of(Prompt("", meta=row), self.column)
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{place}: expected an object with references in '{self.column}'.") from None
