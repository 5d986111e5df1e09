"""What rewards of texts share: lengths in a unit, references from a column, a reward that tells right from wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.rows import data_check
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.rewards.parsing import Unreadable, inner, solution_of, words

T = TypeVar("T")
Unit = Literal["tokens", "words", "characters"]
_COUNTS: dict[str, Callable[[str], int]] = {"words": lambda text: len(words(text)), "characters": len}


def lengths_of(rollout: Rollout, unit: Unit, within: str = "") -> Float[Tensor, " B"]:
    """How long each output is; `within` measures only what stands inside that tag (0 where it does not stand once).

    Raises:
        CapabilityError: tokens, but the outputs come without their tokens, or only a part of them is wanted.
    """
    if unit == "tokens":
        if rollout.mask is None or within:
            raise CapabilityError(
                "unit: tokens counts the tokens a policy sampled, whole outputs only; use unit: words or characters."
            )
        return rollout.mask.sum(1).float().cpu()
    texts = [_inside(text, within) if within else text for text in rollout.output]
    return torch.tensor([float(_COUNTS[unit](text)) for text in texts])


def _inside(text: str, tag: str) -> str:
    try:
        return inner(text, tag)
    except Unreadable:
        return ""


def references_of(prompt: Prompt, column: str) -> list[str]:
    """The texts in a column: one, or several that are equally right; switches are yes or no, 5.0 is 5.

    Raises:
        ValueError: it holds none, or something that has no text (null, NaN, an object).
    """
    value = prompt.meta[column]
    found = [_said(v) for v in (value if isinstance(value, list | tuple) else [value])]
    if not found or not all(text.strip() for text in found):
        raise ValueError(f"Prompt.meta['{column}'] holds no text: {str(value)[:60]!r}")
    return found


def solutions_of(prompt: Prompt, column: str) -> list[str]:
    """The right answers in a column, out of worked solutions too (`parsing.solution_of`). ValueError as above."""
    return [from_data(column, lambda text=text: solution_of(text)) for text in references_of(prompt, column)]  # type: ignore[misc]


def distinct(each: Sequence[Sequence[str]]) -> tuple[list[str], Bool[Tensor, "B N"]]:
    """All texts of all rows once each, and which of them are in which row."""
    texts = sorted({text for row in each for text in row})
    place = {text: j for j, text in enumerate(texts)}
    present = torch.zeros(len(each), len(texts), dtype=torch.bool)
    for i, row in enumerate(each):
        present[i, [place[text] for text in row]] = True
    return texts, present


def from_data(column: str, read: Callable[[], T]) -> T:
    """`read()` of a column's text; what cannot be read there is the data's fault, not the output's: a ValueError."""
    try:
        return read()
    except Unreadable as error:
        raise ValueError(f"Prompt.meta['{column}']: {error}") from None


def _said(value: Any) -> str:
    """A value as text, "" where it has none. Tables make floats of whole numbers where a row has no value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            ""
            if not math.isfinite(value)
            else f"{value:.0f}"
            if value.is_integer() and abs(value) < 1e15
            else repr(value)
        )
    try:
        return str(value) if isinstance(value, str | int) else ""
    except ValueError:  # a whole number of more digits than Python writes out
        return ""


class Verdicts:
    """A reward asked only whether each row is right: its value is above `threshold`."""

    def __init__(self, spec: str | Mapping[str, Any], threshold: float) -> None:
        from mmalign.rewards import Guarded, rewards

        named = {"name": spec} if isinstance(spec, str) else dict(spec)
        self.reward = rewards.build(named, "correct")
        self.threshold = threshold
        self._guarded = Guarded("correct", self.reward, monitor=True)

    @property
    def traits(self) -> RewardTraits:
        """What the reward says of itself."""
        return self._guarded.traits

    def __call__(self, rollout: Rollout) -> tuple[Bool[Tensor, " B"], Scores]:
        """Which rows are right (False where there is no verdict), and the scores themselves."""
        scores = self._guarded(rollout)
        return (scores.value > self.threshold).cpu(), scores

    def fingerprint(self) -> str:
        """All that names the reward in a cache."""
        return identity(self.reward) or ""

    def after(self, scores: Scores, value: Float[Tensor, " B"]) -> Scores:
        """`value` where there was a verdict (a malformed answer is wrong, which is one), else the verdict's status."""
        status: Int[Tensor, " B"] = torch.where(scores.valid, 0, scores.status).to(torch.int8).cpu()
        kept = torch.where(status == 0, value, float("nan"))
        return Scores(kept, status, parts={"correct": scores.value.cpu()}, info=scores.info)


class NeedsVerdicts:
    """A reward that scores right and wrong rows differently: it needs what the reward needs that tells them apart."""

    _verdicts: Verdicts

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of `Prompt.meta` that `correct` cannot do without."""
        return self._verdicts.traits.needs

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where `correct` can never score the row."""
        return data_check(self._verdicts.reward)
