"""Is the number in the answer within a tolerance of the right one? ChartQA's relaxed accuracy; words must be equal."""

from __future__ import annotations

from typing import Literal

from mmalign.core.types import Prompt
from mmalign.rewards import functional
from mmalign.rewards._rule import rule
from mmalign.rewards._texts import from_data, references_of
from mmalign.rewards.parsing import Unreadable, Where, answer_of, last_number, normalized, number

__all__ = ["relaxed_accuracy"]


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",))
def relaxed_accuracy(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answer",
    tolerance: float = 0.05,
    graded: bool = False,
    find: Literal["whole", "last"] = "whole",
    where: Where = "auto",
) -> float:
    """1 within the relative tolerance (Masry et al. 2022; Mixed-R1's chart reward), else 0; 0 must be met exactly.

    "%", currency signs and thousands separators do not count. Where the right answer is words, equality after
    normalisation. An answer that is no number where only numbers are right is PARSE_FAIL.

    Args:
        column: of `Prompt.meta`: the right answer, or a list of equally right ones.
        tolerance: share of the right number; the bound is within.
        graded: 1 - distance/tolerance instead of all or nothing.
        find: `whole`: the answer is the number; `last`: the last number in it.
        where: the answer stands, see `parsing.answer_of`.
    """
    said = answer_of(output, where)
    scores, unread = [], None
    for reference in references_of(prompt, column):
        try:
            right = number(reference)
        except Unreadable:
            same = from_data(column, lambda text=reference: normalized(text))  # type: ignore[misc]
            scores.append(float(normalized(said) == same))
            continue
        try:
            given = number(said) if find == "whole" else last_number(said)
        except Unreadable as error:  # of several right answers another may be words
            unread = error
            continue
        scores.append(functional.relaxed_accuracy(given, right, tolerance, graded))
    if unread is not None and not scores:
        raise unread
    return max(scores)
