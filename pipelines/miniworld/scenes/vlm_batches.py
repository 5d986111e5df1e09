"""Lessons about pictures as tensors: a picture once, and behind it lessons that do not see each other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmalign.miniworld.boxes import box_of
from mmalign.miniworld.scenes import IMAGE_SIZE, SHAPES, Scene
from mmalign.miniworld.vlm_examples import Shown
from pipelines.miniworld.scenes.clip_examples import patch_labels, soften
from pipelines.miniworld.scenes.vlm_model import ANSWER, END, IMAGE, IMAGE_TOKENS, PATCH

if TYPE_CHECKING:
    import torch
    from transformers import LlavaProcessor


@dataclass
class Batch:
    """Pictures, each with all its lessons behind it; a lesson sees the picture and itself alone."""

    pixels: "torch.Tensor"  # (B, 3, 64, 64), as the processor makes them
    ids: "torch.Tensor"  # (B, L)
    positions: "torch.Tensor"  # (B, L); every lesson starts where the picture ends
    seen: "torch.Tensor"  # (B, 1, L, L) bool
    targets: "torch.Tensor"  # (B, L), the next token where it is part of an answer, and -100
    patches: "torch.Tensor"  # (B, patches, 3), see patch_labels
    places: "torch.Tensor"  # (B, patches, 4), boxes of the things in units of eight pixels


def patch_places(scenes: list[Scene]) -> np.ndarray:
    """``(n, patches, 4)`` float32: the box of what is centred in each patch, in units of eight pixels, else 0."""
    across = IMAGE_SIZE // PATCH
    places = np.zeros((len(scenes), across * across, 4), dtype=np.float32)
    for row, scene in zip(places, scenes, strict=True):
        for thing in scene.things:
            row[int(thing.y) // PATCH * across + int(thing.x) // PATCH] = np.array(box_of(thing)) / 8
    return places


class Packing:
    """Turns shown pictures into batches."""

    def __init__(self, processor: "LlavaProcessor", rng: np.random.Generator) -> None:
        self.tokenizer, self.rng = processor.tokenizer, rng
        self.image_id = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self._kept: dict[str, list[int]] = {}

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text."""
        if text not in self._kept:
            self._kept[text] = self.tokenizer(text).input_ids
        return self._kept[text]

    def batch(self, shown: list[Shown], hidden: float = 0.0) -> Batch:
        """Pack and pad; up to ``hidden`` of the empty patches of each picture cannot be seen."""
        import torch

        rows = [self._row(one) for one in shown]
        width = max(len(row[0]) for row in rows)
        ids, positions, lessons = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
        targets = torch.full((len(rows), width), -100)
        for at, row in enumerate(rows):
            for tensor, values in zip((ids, positions, lessons, targets), row, strict=True):
                tensor[at, : len(values)] = torch.tensor(values)
        # Padding counts to the picture: it stands behind everything, where nothing looks.
        same = (lessons[:, None, :, None] == lessons[:, None, None, :]) | (lessons == 0)[:, None, None, :]
        seen = same & torch.ones(width, width, dtype=torch.bool).tril()
        empty = torch.from_numpy(self.rng.random((len(rows), IMAGE_TOKENS)) < hidden * self.rng.random((len(rows), 1)))
        images = soften(np.stack([one.image for one in shown]), self.rng)
        clean = [Scene(tuple(thing for thing in one.scene.things if thing.shape in SHAPES)) for one in shown]
        patches, places = torch.from_numpy(patch_labels(clean, PATCH)), torch.from_numpy(patch_places(clean))
        alone = torch.eye(width, dtype=torch.bool)[:, :IMAGE_TOKENS]
        seen[..., :IMAGE_TOKENS] &= ~(empty & (patches[..., 0] == 0))[:, None, None, :] | alone
        return Batch(torch.from_numpy(images - 0.75) / 0.25, ids, positions, seen, targets, patches, places)

    def _row(self, shown: Shown) -> tuple[list[int], list[int], list[int], list[int]]:
        """Ids, positions, number of the lesson (0 for the picture) and targets."""
        ids, positions = [self.image_id] * IMAGE_TOKENS, list(range(IMAGE_TOKENS))
        numbers, targets = [0] * IMAGE_TOKENS, [-100] * IMAGE_TOKENS
        for number, (question, answer) in enumerate(shown.lessons, start=1):
            question_ids, answer_ids = self.tokens(f"{question} {ANSWER}"), self.tokens(f"{answer} {END}")
            ids += question_ids + answer_ids[:-1]
            numbers += [number] * (len(question_ids) + len(answer_ids) - 1)
            positions += range(IMAGE_TOKENS, IMAGE_TOKENS + len(question_ids) + len(answer_ids) - 1)
            targets += [-100] * (len(question_ids) - 1) + answer_ids
        return ids, positions, numbers, targets
