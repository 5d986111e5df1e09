"""Is the answer the right one, word for word? Case, width, punctuation at the ends and blanks do not count."""

from __future__ import annotations

import re

from mmalign.core.types import Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.columns import from_data, solutions_of
from mmalign.rewards.parsing import Unreadable, Where, answer_of, normalized, quantity, unwrapped

__all__ = ["exact_match"]

_YES = ("yes", "true", "correct", "right", "yeah", "yep", "是", "对", "oui", "ja", "sí", "si")
_NO = ("no", "false", "incorrect", "wrong", "nope", "not", "否", "不是", "non", "nein")
_SAME = dict.fromkeys(_YES, "yes") | dict.fromkeys(_NO, "no")
_DIRECTION = "right"  # as a reference it may be the opposite of left, which "yes" does not say
_CODE = re.compile(r"\D*0\d")  # 007: digits that name something


def _check(prompt: Prompt, *, column: str, **_: object) -> None:
    from_data(column, lambda: [normalized(text) for text in solutions_of(prompt, column)])


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def exact_match(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answer",
    where: Where = "auto",
    synonyms: bool = True,
    markup: bool = True,
    numbers: bool = True,
) -> float:
    """1 if the answer equals (one of) the reference(s), else 0: the matching reward of Mixed-R1 (2505.24164).

    What does not count on either side: case, full and half width, invisible characters, how many blanks, which dash or
    minus sign, punctuation at the ends (`parsing.normalized`). What does: everything else, so 2⁵ is not 25. The
    normalisation is a reconstruction; only the paper's abstract was in reach. For equivalent formulas see `math_equal`,
    for numbers that are near `relaxed_accuracy`.

    Args:
        column: of `Prompt.meta`: the right answer, a list of equally right ones, or a worked solution that ends in
            "#### 72" or holds a `\\boxed{72}`.
        where: the answer stands, see `parsing.answer_of`.
        synonyms: "true", "correct", … are "yes", and their opposites "no"; the reference "right" is only itself.
        markup: what is set around the whole answer does not count: `**Paris**`, `"Paris"`, `$5$`, `\\text{Paris}`.
        numbers: numbers are equal by value: 5 and 5.0, 1,000 and 1000, 1/2 and `\\frac{1}{2}`, 50% and 0.5
            (`parsing.quantity`). Those in different currencies are not, and one that begins as 007 does is a text.
    """
    answer = answer_of(output, where)
    for right in solutions_of(prompt, column):
        given, wanted = (unwrapped(answer), unwrapped(right)) if markup else (answer, right)
        if _equal(given, wanted, column, synonyms) or (numbers and _same_number(given, wanted)):
            return 1.0
    return 0.0


def _equal(answer: str, right: str, column: str, synonyms: bool) -> bool:
    wanted = from_data(column, lambda: normalized(right))
    actual = normalized(answer)
    meant = _SAME.get(wanted) if synonyms and wanted != _DIRECTION else None
    return actual == wanted or (meant is not None and _SAME.get(actual) == meant)


def _same_number(answer: str, right: str) -> bool:
    try:
        actual, wanted = quantity(answer), quantity(right)
    except Unreadable:
        return False
    one_currency = len({actual.currency, wanted.currency} - {""}) < 2
    return actual.value == wanted.value and one_currency and not any(map(_CODE.match, (answer, right)))
