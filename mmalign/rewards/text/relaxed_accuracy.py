"""Is the number in the answer within a tolerance of the right one? ChartQA's relaxed accuracy; words must be equal."""

from __future__ import annotations

from typing import Literal

from mmalign.core.options import NotNegative
from mmalign.core.types import Prompt
from mmalign.rewards import functional
from mmalign.rewards.by_row import rule
from mmalign.rewards.columns import from_data, solutions_of
from mmalign.rewards.parsing import Unreadable, Where, answer_of, last_quantity, normalized, quantity, unwrapped

__all__ = ["relaxed_accuracy"]


def _check(prompt: Prompt, *, column: str, **_: object) -> None:
    from_data(column, lambda: [normalized(text) for text in solutions_of(prompt, column)])


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def relaxed_accuracy(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answer",
    tolerance: NotNegative = 0.05,
    graded: bool = False,
    find: Literal["whole", "last"] = "whole",
    percent: Literal["hundredths", "ignored"] = "hundredths",
    where: Where = "auto",
) -> float:
    """1 within the relative tolerance (Masry et al. 2022; Mixed-R1's chart reward), else 0; 0 must be met exactly.

    How numbers may be written stands in `parsing.numbers`; signs of currency do not count. Where the right answer is
    words, equality after normalisation. An answer that is no number where only numbers are right, or one that is not
    understood, is PARSE_FAIL: no part of a number is taken for it.

    Per cent are hundredths, as in the public graders of ChartQA (`relaxed_correctness` of google-research/pix2struct,
    QwenLM/Qwen-VL's `evaluate_vqa.py` and lmms-eval's `chartqa/utils.py`: "Convert percentages to floats", by 100): 12%
    is 0.12 and not 12. Those graders compare an answer of 0 as a text; here 0.0 is 0.

    Args:
        column: of `Prompt.meta`: the right answer, a list of equally right ones, or a worked solution (`exact_match`).
        tolerance: share of the right number; the bound is within.
        graded: 1 - distance/tolerance instead of all or nothing.
        find: `whole`: the answer is the number; `last`: the last number in it.
        percent: 12% is 0.12 (`hundredths`), or 12 as if the sign were not there (`ignored`).
        where: the answer stands, see `parsing.answer_of`.
    """
    answer = answer_of(output, where)
    read = quantity if find == "whole" else last_quantity
    scores, unread = [], None
    for reference in solutions_of(prompt, column):
        try:
            right = quantity(reference)
        except Unreadable:
            scores.append(float(_words(answer) == from_data(column, lambda text=reference: _words(text))))  # type: ignore[misc]
            continue
        try:
            given = read(answer)
        except Unreadable as error:  # of several right answers another may be words
            unread = error
            continue
        values = [float(q.value * (100 if q.percent and percent == "ignored" else 1)) for q in (given, right)]
        scores.append(functional.relaxed_accuracy(values[0], values[1], tolerance, graded))
    if unread is not None and not scores:
        raise unread
    return max(scores)


def _words(text: str) -> str:
    return normalized(unwrapped(text))
