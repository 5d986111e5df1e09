"""What rewards of lengths share: lengths in a unit, and a reward that tells right from wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.traits import RewardTraits, data_check
from mmalign.rewards.parsing import Unreadable, inner, words

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
        valued = torch.where(status == 0, value, float("nan"))
        return Scores(valued, status, parts={"correct": scores.value.cpu()}, info=scores.info)


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
