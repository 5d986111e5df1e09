"""How well a picture and its text agree, by a CLIP-family model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards.engine.contract import mask_empty_prompts
from mmalign.rewards.functional import clip_score
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source
from mmalign.rewards.models.pictured import captions_of, picture_features
from mmalign.rewards.parsing import Where

__all__ = ["Clip"]


@dataclass
class Clip(ReadsClip):
    """Cosine of picture and text in a CLIP-family model; differentiable in the pixels.

    Judges pictures against their prompts (an empty one is NOT_APPLICABLE); and texts (captions) against the picture
    `prompt.media["image"]` they were written for: without one a row is NOT_APPLICABLE, with one that cannot be read an
    ERROR; an empty caption is PARSE_FAIL.

    Args:
        checkpoint: a folder (open_clip's or transformers'), `hf-hub:org/name` (open_clip) or `org/name` (transformers).
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag, or a safetensors file of them.
        backend: which library reads `checkpoint`; `auto` sees it from the files.
        processor: where a transformers checkpoint's tokenizer and preprocessing lie, if not beside it.
        score: `cosine` in [-1, 1] (HPSv2); `clip_score`, 2.5 max(cosine, 0) (Hessel et al. 2021); `logit`, cosine times
            the model's learned scale, about 100 (PickScore).
        prefix: put before every text; CLIPScore's is "A photo depicts ".
        where: in a text the answer stands, see `parsing.answer_of`.
        dtype: of the vision tower's arithmetic.
    """

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    processor: str = ""
    score: Literal["cosine", "clip_score", "logit"] = "cosine"
    prefix: str = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    where: Where = "whole"
    modalities = frozenset({"image", "text"})
    differentiable = True
    deterministic = True
    version = "2"  # empty prompts have no score

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend, self.processor)

    @property
    def range(self) -> tuple[float, float]:
        """Of the chosen score: "cosine" [-1, 1], "clip_score" [0, 2.5], "logit" ± the model's scale, which loads it."""
        if self.score == "cosine":
            return -1.0, 1.0
        return (0.0, 2.5) if self.score == "clip_score" else (-self.towers.scale, self.towers.scale)

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """What it will read that is known before outputs are: the prompts of pictures."""
        return [self.prefix + prompt.text for prompt in prompts] if modality == "image" else []

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures by their prompts, or B captions by the pictures in `media["image"]`.

        An empty prompt, or a caption without a picture, is NOT_APPLICABLE.
        """
        if isinstance(rollout.output, Tensor):
            texts = [self.prefix + prompt.text for prompt in rollout.prompts]
            return mask_empty_prompts(Scores.of(self._agreement(rollout.output, texts)), rollout.prompts)
        return self._captions(rollout)

    def _agreement(self, images: Float[Tensor, "B 3 H W"], texts: list[str]) -> Float[Tensor, " B"]:
        towers = self.towers
        image = towers.images(images, getattr(torch, self.dtype))
        # Row by row: the B x B matrix of all pairs would hold B² numbers to use B.
        return self._scored((image * towers.texts(texts, images.device)).sum(1))

    def _scored(self, cosine: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        if self.score == "cosine":
            return cosine
        return clip_score(cosine) if self.score == "clip_score" else self.towers.scale * cosine

    def _captions(self, rollout: Rollout) -> Scores:
        captioned, scores = captions_of(rollout, self.range[0], where=self.where)
        if captioned:
            towers = self.towers
            image = picture_features(towers, [row.picture for row in captioned.values()], getattr(torch, self.dtype))
            texts = towers.texts([self.prefix + row.caption for row in captioned.values()], image.device)
            scores.value[list(captioned)] = self._scored((image * texts).sum(1)).cpu()
        return scores
