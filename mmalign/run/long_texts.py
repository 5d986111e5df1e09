"""Texts of the data that a reward's model reads only in part: said before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from mmalign.core.cuts import TextLimit
from mmalign.core.errors import MissingExtra
from mmalign.core.types import Modality, Prompt
from mmalign.data.row_kinds import prompts_of
from mmalign.data.sampled import sampled
from mmalign.run.build import Parts


@runtime_checkable
class ReadsTexts(Protocol):
    """A reward whose model reads texts up to a length, some of which are known before outputs are."""

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """Return what it will read of these prompts where outputs are of `modality`."""
        ...

    def limit(self) -> TextLimit:
        """Return how much of a text its model reads; loads the tokenizer only."""
        ...


def long_texts(parts: Parts, held_out: Sequence[Any] = ()) -> list[str]:
    """Return a sentence for each reward and judge about the texts in the data that are longer than its model reads.

    Tokenizers alone are loaded; where that fails, loading the model will say why. What is cut while training (captions,
    for one) is counted as `reward/…/texts_cut`.
    """
    slots = parts.reward.slots.items() if parts.reward is not None else ()
    judged = [(f"rewards.{name}", slot.reward) for name, slot in slots]
    measured = [(f"evaluation.judges.{name}", judge) for name, judge in parts.judges.items()]
    readers = [(place, reward) for place, reward in [*judged, *measured] if isinstance(reward, ReadsTexts)]
    if not readers:
        return []
    prompts = [*prompts_of(sampled(parts.source.training_items())), *prompts_of(held_out)]
    sentences = []
    for place, reward in readers:
        texts = reward.known_texts(prompts, parts.policy.modality)
        try:
            sentence = reward.limit().summary(texts) if texts else None
        except (OSError, ValueError, MissingExtra):
            continue
        if sentence is not None:
            sentences.append(f"{place}: {sentence}")
    return sentences
