"""Does an answer cite the passages that support it, and no others?"""

from __future__ import annotations

import re

from mmalign.core.types import Prompt
from mmalign.rewards.by_row import rule
from mmalign.rewards.columns import plain_data
from mmalign.rewards.parsing import LONG, bounded
from mmalign.rewards.parsing.answers import behind_thinking

__all__ = ["citations"]

_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")


def _check(prompt: Prompt, *, column: str, **_: object) -> None:
    _supporting(prompt, column)


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def citations(prompt: Prompt, output: str, *, column: str = "supporting") -> float:
    """F1 of the passages that an output cites, as [1] or [1, 2], against those that support the right answer.

    The fine-grained citation of RAG-RewardBench (2412.13746) as an exact rule. 1 where nothing supports an answer and
    nothing is cited. What is cited in the thinking does not count.

    Args:
        column: of `Prompt.meta`: the numbers of the supporting passages, [] where there is none.
    """
    wanted = _supporting(prompt, column)
    cited = {int(n) for mark in _MARK.findall(behind_thinking(bounded(output, LONG))) for n in re.split(r"[,;]", mark)}
    if not wanted and not cited:
        return 1.0
    return 2 * len(wanted & cited) / (len(wanted) + len(cited))


def _supporting(prompt: Prompt, column: str) -> set[int]:
    """The numbers of the passages. ValueError: the data's fault."""
    value = plain_data(prompt.meta[column], column)
    numbers = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(n, bool) or not isinstance(n, int | str) or not str(n).strip().isdecimal() for n in numbers):
        raise ValueError(f"Prompt.meta['{column}'] is a list of numbers of passages, found {str(value)[:60]!r}")
    return {int(n) for n in numbers}
