"""What people ask a finished run, and its two answers: of its start and of what it learned, from the same noise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmalign.core.cuts import Cuts, counting_cuts
from mmalign.core.errors import DataError, MmalignError
from mmalign.core.protocols import PolicyTraits
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.data.row_kinds import prompts_of
from mmalign.media.bounds import PIXELS
from mmalign.media.image import from_pil
from mmalign.run.build import held_out
from mmalign.run.load import Trained

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MOST_OUTPUTS",
    "Side",
    "chosen_prompt",
    "generate_both",
    "generator_of",
    "known",
    "likeliest",
    "pictures_of",
    "verdict_of",
]

MOST_OUTPUTS = 8
log = logging.getLogger("mmalign")


@dataclass(frozen=True)
class Side:
    """B outputs for one prompt, and by reward their scores, or the sentence why it cannot say anything of them.

    `made` is what a frozen generator makes of texts that are written for it, where a reward of the run has one; `cut`
    names the models that did not read the prompt, or an output, to its end.
    """

    rollout: Rollout
    verdicts: Mapping[str, Scores | str]
    made: Any = None
    cut: Sequence[str] = ()


def known(run: Trained, count: int = 12) -> list[Prompt]:
    """The first held-out prompts; of a run without any, the first it was trained on; none where they cannot be read."""
    try:
        return list(prompts_of((held_out(run.parts) or run.parts.source.training_items())[:count]))
    except (MmalignError, OSError) as error:
        log.warning("there are no prompts to choose from: %s", error)
        return []


def chosen_prompt(
    choice: Sequence[Prompt], text: str, number: int | None = None, picture: Image | None = None
) -> Prompt:
    """The prompt that the fields of the page stand for; one of `choice` keeps its facts while nobody changes it.

    Args:
        choice: what `known` found.
        text: as it stands in its field now.
        number: the prompt of `choice` whose media are shown; None where `picture` was brought along, or nothing is.
        picture: what the prompt is about, if not `choice[number]`.

    Raises:
        MediaError: a picture of more pixels than are read.
        DataError: no text, or nothing that it is about in a run whose prompts all are about something.
    """
    if not text.strip():
        raise DataError("the prompt is empty; write one, or choose one of those below.")
    if number is not None:
        chosen = choice[number]
        return chosen if text.strip() == chosen.text.strip() else Prompt(text, chosen.media)
    if picture is not None:
        PIXELS.require(picture.width * picture.height, "the picture", f"{picture.width} x {picture.height}")
        return Prompt(text, {"image": from_pil(picture)})
    if choice and all(list(one.media) for one in choice):
        raise DataError("the prompts of this run are about something; choose one of those below, or bring a picture.")
    same = (one for one in choice if text.strip() == one.text.strip() and not list(one.media))
    return next(same, Prompt(text))


def likeliest(run: Trained) -> bool:
    """Does the run answer a prompt in one way only, whatever the seed?"""
    return PolicyTraits.of(run.parts.policy).eval_temperature == 0


def generate_both(run: Trained, prompt: Prompt, count: int, seed: int) -> tuple[Side, Side]:
    """`count` outputs of the start and of what was learned, row by row from the same noise, each with its scores.

    Raises:
        DataError: no outputs, or more than the page shows.
    """
    if not 1 <= count <= MOST_OUTPUTS:
        raise DataError(f"{count} outputs: ask for 1 to {MOST_OUTPUTS}.")
    with counting_cuts() as cuts:
        with run.start():
            before = run.generate([prompt] * count, seed)
        after = run.generate([prompt] * count, seed)
    return _judged(run, before, cuts), _judged(run, after, cuts)


def _judged(run: Trained, rollout: Rollout, cuts: Cuts) -> Side:
    with counting_cuts() as more:
        verdicts = {name: verdict_of(reward, rollout) for name, reward in run.rewards.items()}
    return Side(rollout, verdicts, pictures_of(run, rollout), sorted({reader for reader, _ in cuts.texts | more.texts}))


def generator_of(run: Trained) -> Any:
    """The reward that looks at what a frozen generator makes of texts; None where the run has none."""
    slots = run.parts.reward.slots.values() if run.parts.reward is not None else ()
    return next((slot.reward for slot in slots if hasattr(slot.reward, "made")), None)


def pictures_of(run: Trained, rollout: Rollout) -> Any:
    """The pictures that a rewriter's texts lead to, (B * images, 3, H, W); None where no reward looks at any."""
    if not isinstance(rollout.output, list):
        return None
    through = generator_of(run)
    made = None if through is None else through.made(rollout.prompts, rollout.output).output
    return made if isinstance(made, torch.Tensor) else None


def verdict_of(reward: Callable[[Rollout], Scores], rollout: Rollout) -> Scores | str:
    """One reward that cannot judge what was asked (an uploaded picture of another size) leaves the others standing."""
    try:
        with torch.no_grad():
            return reward(rollout).to("cpu")
    except MmalignError as error:
        return str(error)
