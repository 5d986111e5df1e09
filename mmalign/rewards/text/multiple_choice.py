"""Does the answer name the right option, and only that one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmalign.core.options import AtLeastTwo
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.columns import from_data, plain_data
from mmalign.rewards.parsing import Where, answer_of, choice, normalized, solution_of
from mmalign.rewards.parsing.choices import LETTERS

__all__ = ["multiple_choice"]

_COUNTED = "is a whole number, which may count options from 0 or from 1: say count_from"


def _check(
    prompt: Prompt, *, column: str, choices: str, options: int, count_from: Literal[0, 1] | None, **_: object
) -> None:
    _right(prompt, column, choices, options, count_from)


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def multiple_choice(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answer",
    choices: str = "choices",
    options: AtLeastTwo = 5,
    count_from: Literal[0, 1] | None = None,
    where: Where = "auto",
) -> float:
    """1 if exactly one option is named and it is the right one, 0 if it is another.

    An answer that names none, or several ("A or B", which other graders pay for), is PARSE_FAIL.

    Args:
        column: of `Prompt.meta`: the right option's letter, its own words, its label in `choices`, or its number.
        choices: column with the options' words in the order of their letters, where the data has it: a list, JSON text
            of one, or {"text": […], "label": […]} as in ARC.
        options: how many there are where it does not.
        count_from: what the first option's number in the column is: 0 (MMLU, ScienceQA) or 1. Numbers are refused
            without it, and where they are also an option's own words.
        where: the answer stands, see `parsing.answer_of`.
    """
    right, count, texts = _right(prompt, column, choices, options, count_from)
    return float(choice(answer_of(output, where), count, texts) == right)


def _right(
    prompt: Prompt, column: str, choices: str, options: int, count_from: int | None
) -> tuple[str, int, Sequence[str]]:
    """The right option's letter, how many there are, and their words where known. ValueError: the data's fault."""
    texts, labels = _options(prompt.meta.get(choices), choices)
    count = len(texts) or options
    if not 1 <= count <= len(LETTERS):
        raise ValueError(f"Prompt.meta['{choices}'] holds {count} options; 1 to {len(LETTERS)} have letters")
    value = prompt.meta[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"Prompt.meta['{column}'] is a letter, words or a number, found {str(value)[:60]!r}")
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    if text in labels:
        return LETTERS[labels.index(text)], count, texts
    if text.strip().removeprefix("-").isdecimal():
        return _counted(int(text.strip()[:9]), column, count, texts, count_from), count, texts
    return from_data(column, lambda: choice(solution_of(text), count, texts)), count, texts


def _counted(number: int, column: str, count: int, texts: Sequence[str], count_from: int | None) -> str:
    """The letter of an option by its number, or by a number that is its words."""
    same = [i for i, text in enumerate(texts) if normalized(text) == str(number)]
    place = None if count_from is None else number - count_from
    if place is None and len(same) != 1:
        raise ValueError(f"Prompt.meta['{column}'], {number}, {_COUNTED}")
    if place is not None and same and same != [place]:
        raise ValueError(f"Prompt.meta['{column}'], {number}, is both an option's number and another option's words")
    place = same[0] if place is None else place
    if not 0 <= place < count:
        last = count - 1 + (count_from or 0)
        raise ValueError(f"Prompt.meta['{column}'] is {number}; {count} options count from {count_from} to {last}")
    return LETTERS[place]


def _options(value: Any, column: str) -> tuple[list[str], list[str]]:
    """The words and the labels of the options, [] where there are none."""
    value = plain_data(value, column)
    labels: Any = []
    if isinstance(value, Mapping):
        value, labels = value.get("text"), value.get("label") or []
    if not isinstance(value or [], list | tuple) or any(isinstance(v, list | dict) or v is None for v in value or []):
        raise ValueError(f"Prompt.meta['{column}'] is a list of the options' words, found {str(value)[:60]!r}")
    return [str(v) for v in value or []], [str(v) for v in labels]
