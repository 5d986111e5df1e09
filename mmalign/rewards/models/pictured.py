"""Captions and the pictures they were written for, in CLIP features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.by_row import Known, media_of, read_rows
from mmalign.rewards.models.clip_towers import Towers
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded


class Captioned(NamedTuple):
    """What a row says, the picture (3, H, W) it says it of, and what others said of it."""

    caption: str
    picture: Tensor
    references: list[str]


def captions_of(
    rollout: Rollout,
    floor: float,
    needs: Sequence[str] = (),
    references: Callable[[Prompt], list[str]] = lambda prompt: [],
    where: Where = "whole",
) -> tuple[dict[int, Captioned], Scores]:
    """Captions with `prompt.media["image"]`, by row number, and the statuses of all rows.

    Without a picture a row is NOT_APPLICABLE; with one that cannot be read an ERROR; a caption
    that is empty, or does not stand `where` it should, is PARSE_FAIL.
    """
    known: Known = {}

    def read(prompt: Prompt, caption: str) -> Captioned | None:
        if "image" not in list(prompt.media):  # `in` alone would decode a file
            return None
        text = bounded(answer_of(caption, where), LONG)
        picture = media_of(prompt, known)["image"]
        picture = picture if picture.dim() == 3 else picture.reshape(picture.shape[-3:])
        return Captioned(text, picture, references(prompt))

    return read_rows(read, rollout, floor, needs)


def picture_features(
    towers: Towers, pictures: Sequence[Tensor], dtype: torch.dtype | None = None
) -> Float[Tensor, "B D"]:
    """Unit features of pictures of any sizes, on the model's device; each picture is prepared and seen once."""
    device = towers.module.logit_scale.device
    first = {id(picture): picture for picture in pictures}
    # Pictures of a data set differ in size, so each is prepared on its own.
    with torch.no_grad():
        seen = {key: towers.images(picture[None].to(device), dtype)[0] for key, picture in first.items()}
    return torch.stack([seen[id(picture)] for picture in pictures])
