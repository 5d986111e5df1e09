"""Pictures of the embedded world, drawn by seed, with something to be said about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from mmalign.core.options import AtLeastOne, Count
from mmalign.core.tensor import Tensor
from mmalign.core.types import Example, Prompt

if TYPE_CHECKING:
    from mmalign.miniworld.language import Request
    from mmalign.miniworld.scenes import Scene, Shades

__all__ = ["Scenes"]

Skill = Literal["caption", "boxes", "questions", "draw"]
Compositions = Literal["unseen", "seen"]


@dataclass
class Scenes:
    """Prompts with `media["image"]` (3, 64, 64), or examples of pictures; no held-out picture is trained on.

    | skill | the prompt asks | `Prompt.meta` |
    |---|---|---|
    | caption | to describe the picture | references: [its fullest caption], for `bmas`, `cider`, … |
    | boxes | where the things of one kind are | boxes: in pixels, for `iou`; size: [64, 64] |
    | questions | something with yes or no | answer: "yes" or "no", for `exact_match` |
    | draw | for the picture, which is the output to imitate (objective sft) | |

    Args:
        skill: which of them.
        count: pictures to train on.
        held_out: pictures to evaluate on.
        seed: of all pictures; the two sides differ for every seed.
        compositions: of held-out pictures. "unseen": each shows one that training never shows; "seen": none does, they
            are new pictures of what training shows. Of skill draw both sides show what the embedded generator's own
            training never showed ("unseen") or did ("seen"), and have no caption in common.
    """

    skill: Skill = "caption"
    count: AtLeastOne = 1000
    held_out: Count = 256
    seed: Count = 0
    compositions: Compositions = "unseen"

    def __post_init__(self) -> None:
        if self.skill not in get_args(Skill):
            raise ValueError(f"skill is {self.skill!r}; there is {', '.join(get_args(Skill))}")
        if self.compositions not in get_args(Compositions):
            raise ValueError(f"compositions is {self.compositions!r}; there is {', '.join(get_args(Compositions))}")
        if self.count < 1 or self.held_out < 0:
            raise ValueError(f"count is {self.count} and held_out {self.held_out}; they count pictures")

    def training_items(self) -> list[Any]:
        """Pictures of the train split."""
        return self._training

    def held_out_items(self) -> list[Any]:
        """New pictures, of unseen or of seen compositions."""
        return self._held_out

    @cached_property
    def _training(self) -> list[Any]:
        if self.skill == "draw":
            aside = {row.prompt.text for row in self._held_out if isinstance(row, Example)}
            return self._pictures(self.count, np.random.default_rng([43, self.seed, 3]), aside)
        return self._drawn("train", self.count, np.random.default_rng([43, self.seed, 0]))

    @cached_property
    def _held_out(self) -> list[Any]:
        if self.skill == "draw":
            return self._pictures(self.held_out, np.random.default_rng([43, self.seed, 4]), set())
        seen = self.compositions == "seen"
        rng = np.random.default_rng([43, self.seed, 2 if seen else 1])
        return self._drawn("train" if seen else "heldout", self.held_out, rng)

    def _pictures(self, count: int, rng: np.random.Generator, aside: set[str]) -> list[Example]:
        """Captions that are not set `aside`, each with its picture."""
        from mmalign.miniworld.descriptions import sample_described
        from mmalign.miniworld.scenes import render

        rows: list[Example] = []
        while len(rows) < count:
            scene, request = sample_described(rng, "heldout" if self.compositions == "unseen" else "train")
            if request.text not in aside:
                rows.append(Example(Prompt(request.text), torch.from_numpy(render(scene, rng))))
        return rows

    def _drawn(self, split: str, count: int, rng: np.random.Generator) -> list[Prompt]:
        from mmalign.miniworld.descriptions import sample_described
        from mmalign.miniworld.scenes import shaded

        prompts = []
        for _ in range(count):
            scene, request = sample_described(rng, split)
            text, meta = _text_and_columns(self.skill, scene, request, rng, split)
            prompts.append(Prompt(text, Drawing(scene, shaded(scene, rng)), meta))
        return prompts


class Drawing(Mapping[str, Tensor]):
    """`Prompt.media` of a drawn scene: "image" (3, 64, 64), painted at each look."""

    def __init__(self, scene: Scene, shades: Shades) -> None:
        self.source = (scene, shades)

    def __getitem__(self, key: str) -> Tensor:
        from mmalign.miniworld.scenes import painted

        if key != "image":
            raise KeyError(key)
        return torch.from_numpy(painted(*self.source))

    def __iter__(self) -> Iterator[str]:
        return iter(["image"])

    def __len__(self) -> int:
        return 1


def _text_and_columns(
    skill: Skill, scene: Scene, request: Request, rng: np.random.Generator, split: str
) -> tuple[str, Mapping[str, Any]]:
    from mmalign.miniworld.boxes import boxes_of
    from mmalign.miniworld.language import Group
    from mmalign.miniworld.questions import CAPTION, NO, YES, answer, where
    from mmalign.miniworld.scenes import IMAGE_SIZE
    from mmalign.miniworld.vlm_examples import draw_kind, draw_question, likely_questions

    if skill == "caption":
        return CAPTION, {"references": [request.text]}
    if skill == "boxes":
        kind = draw_kind(scene, rng)
        boxes = boxes_of(scene, kind)
        meta = {"boxes": [list(box) for box in boxes], "size": [IMAGE_SIZE, IMAGE_SIZE]}
        return where(Group(len(boxes), kind)), meta
    question = draw_question(scene, likely_questions(request, rng), rng, "train" if split == "train" else "any")
    return question.text, {"answer": YES if answer(question, scene) else NO}
