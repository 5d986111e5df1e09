"""Does an output decline to answer exactly where there is no answer?"""

from __future__ import annotations

from mmalign.core.types import Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["abstains"]

PHRASES = (
    "unknown", "i don't know", "i do not know", "cannot be answered", "can't be answered", "not enough information",
    "no information", "insufficient information", "do not say", "does not say", "don't say", "not mentioned",
    "unanswerable",
)  # fmt: skip
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")


def _check(prompt: Prompt, *, column: str, **_: object) -> None:
    _answerable(prompt, column)


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def abstains(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answerable",
    phrases: list[str] | None = None,
    where: Where = "auto",
) -> float:
    """1 where an output declines to answer and the question has no answer, or answers where it has one; else 0.

    The appropriate abstention of RAG-RewardBench (2412.13746) as an exact rule: it reads phrases, no meaning.

    Args:
        column: of `Prompt.meta`: whether the question can be answered, true or false.
        phrases: what an abstention says, in any case; by default a dozen of English.
        where: the answer stands, see `parsing.answer_of`.
    """
    answer = bounded(answer_of(output, where), LONG).lower().replace("’", "'")
    declined = any(phrase.lower() in answer for phrase in (PHRASES if phrases is None else phrases))
    return float(declined != _answerable(prompt, column))


def _answerable(prompt: Prompt, column: str) -> bool:
    """Whether the question has an answer. ValueError: the data's fault."""
    text = str(prompt.meta[column]).strip().lower()
    if text not in (*_YES, *_NO):
        raise ValueError(f"Prompt.meta['{column}'] is true or false, found {text[:60]!r}")
    return text in _YES
