"""What caption metrics share: the optional libraries, texts cut into words, and members.

A metric takes the members into its body by name (`needs = _captions.needs`).
"""

from __future__ import annotations

import importlib
import re
from typing import Any, ClassVar, Protocol, runtime_checkable

from mmalign.core.errors import MissingExtra
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.engine.rows import judge_rows
from mmalign.rewards.engine.texts import references_of
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


@runtime_checkable
class Metric(Protocol):
    """A judge of one output against the references in a column of `Prompt.meta`."""

    column: str
    range: ClassVar[tuple[float, float]]

    def judge(self, prompt: Prompt, output: str) -> float:
        """The score of one output."""
        ...


@runtime_checkable
class SacreMetric(Protocol):
    """One that sacrebleu computes."""

    column: str
    where: Where
    _metric: Any


@property  # type: ignore[misc]
def needs(self: Metric) -> tuple[str, ...]:
    """Columns of `Prompt.meta`."""
    return (self.column,)


def score(self: Metric, rollout: Rollout) -> Scores:
    """Score B rows."""
    return judge_rows(self.judge, rollout, self.range[0], (self.column,))


def check_data(self: Metric, prompt: Prompt) -> None:
    """Raise ValueError where a row has no reference."""
    references_of(prompt, self.column)


def judge(self: SacreMetric, prompt: Prompt, output: str) -> float:
    """The score of one output, in [0, 1]."""
    said = bounded(answer_of(output, self.where), LONG)
    return min(1.0, float(self._metric.sentence_score(said, references_of(prompt, self.column)).score) / 100)
