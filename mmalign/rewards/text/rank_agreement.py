"""A judge's ranking of several outputs against a better one: what judges are trained by."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from mmalign.core.types import Prompt
from mmalign.rewards import functional
from mmalign.rewards.by_row import rule
from mmalign.rewards.columns import plain_data
from mmalign.rewards.parsing import Unreadable, Where, answer_of, json_values

__all__ = ["rank_agreement"]

_BETWEEN = re.compile(r"\s*(?:>|,|\n)\s*")


def _check(prompt: Prompt, *, column: str, **_: object) -> None:
    _gold(prompt, column)


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",), check=_check)
def rank_agreement(
    prompt: Prompt,
    output: str,
    *,
    column: str = "gold",
    form: Literal["scores", "ranking"] = "scores",
    where: Where = "auto",
) -> float | None:
    """How far a written ranking agrees with the gold scores, in [0, 1]: the ranking reward of RewardAnything.

    1 - Σ penalty / Σ (1 + |difference of gold|), arXiv 2506.03637 (`functional.rank_agreement`): for a policy that is a
    judge, whose prompt holds a principle and several answers with names. Its output is a JSON object of a score for
    each name, or the names from best to worst ("B > A > C"). One that leaves out a name, or has another, is PARSE_FAIL.
    Where all gold scores are equal the row is NOT_APPLICABLE.

    Args:
        column: of `Prompt.meta`: {name: gold score}, of at least two names.
        form: `scores`: a JSON object; `ranking`: names with ">", commas or line ends between them.
        where: the answer stands, see `parsing.answer_of`.
    """
    gold = _gold(prompt, column)
    answer = answer_of(output, where)
    scores = _scores(answer) if form == "scores" else _places(answer)
    if set(scores) != set(gold):
        odd = sorted(set(scores) ^ set(gold))
        raise Unreadable(f"'{odd[0][:40]}' is {'not scored' if odd[0] in gold else 'no candidate'}")
    return functional.rank_agreement([scores[name] for name in gold], list(gold.values()))


def _gold(prompt: Prompt, column: str) -> dict[str, float]:
    """The gold scores by name. ValueError: the data's fault."""
    value = plain_data(prompt.meta[column], column)
    scores = {str(k): v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
    if len(scores) < 2 or not all(map(_is_number, scores.values())):
        raise ValueError(f"Prompt.meta['{column}'] is {{name: score}} of at least two names, found {str(value)[:60]!r}")
    return {name: float(score) for name, score in scores.items()}


def _scores(answer: str) -> dict[str, float]:
    """The last JSON object, of numbers."""
    objects = [value for value in json_values(answer) if isinstance(value, dict)]
    if not objects or not all(map(_is_number, objects[-1].values())):
        raise Unreadable("there is no JSON object of scores")
    return {str(name): float(score) for name, score in objects[-1].items()}


def _places(answer: str) -> dict[str, float]:
    """The names from best to worst, as scores that fall."""
    names = [name for name in _BETWEEN.split(answer.strip()) if name]
    if len(names) != len(set(names)):
        raise Unreadable("a name stands twice")
    return {name: float(-place) for place, name in enumerate(names)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
