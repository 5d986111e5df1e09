"""Does the answer name the right option, and only that one?"""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.core.types import Prompt
from mmalign.rewards._rule import rule
from mmalign.rewards._texts import from_data
from mmalign.rewards.parsing import Where, answer_of, choice

__all__ = ["multiple_choice"]


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",))
def multiple_choice(
    prompt: Prompt,
    output: str,
    *,
    column: str = "answer",
    choices: str = "choices",
    options: int = 5,
    where: Where = "auto",
) -> float:
    """1 if exactly one option is named and it is the right one, 0 if it is another.

    An answer that names none, or several ("A or B", which other graders pay for), is PARSE_FAIL.

    Args:
        column: of `Prompt.meta`: the right option's letter, or its own words.
        choices: column with the options' words, in the order of their letters, where the data has it.
        options: how many there are where it does not.
        where: the answer stands, see `parsing.answer_of`.
    """
    texts: Sequence[str] = prompt.meta.get(choices) or ()
    count = len(texts) or options
    right = from_data(column, lambda: choice(str(prompt.meta[column]), count, texts))
    return float(choice(answer_of(output, where), count, texts) == right)
