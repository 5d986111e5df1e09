"""Whether a picture shows its prompt rather than texts that are almost the same, by a CLIP-family model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.columns import NeedsColumn, distinct, references_of
from mmalign.rewards.engine.contract import mask_empty_prompts
from mmalign.rewards.functional import choice_log_probability
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source

__all__ = ["ClipRPrecision"]


@dataclass
class ClipRPrecision(NeedsColumn, ReadsClip):
    """P(prompt | picture) among the prompt and wrong texts, by CLIP's own softmax; R-precision with hard negatives.

    Cosine grows without end in directions that all texts of a picture share. This is satisfied once the picture cannot
    be mistaken for another text's, and its gradient leads from the wrong texts to the right one (R-precision of
    retrieval, for compositions by Park et al. 2021; its differentiable form is ours). A prompt without wrong texts, or
    an empty one, is NOT_APPLICABLE.

    Args:
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag.
        backend: which library reads `checkpoint`.
        column: of `Prompt.meta`: texts that are wrong where the prompt is right.
        score: `log_probability`, at most 0, differentiable in the pixels; `probability` in [0, 1]; `hit`, 1 where the
            prompt comes first and 0 elsewhere: its mean is R-precision.
        dtype: of the vision tower's arithmetic.
    """

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    column: str = "negatives"
    score: Literal["log_probability", "probability", "hit"] = "log_probability"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    modalities = frozenset({"image"})
    deterministic = True
    version = "2"  # empty prompts have no score

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)

    @property
    def range(self) -> tuple[float, float]:
        """(-∞, 0] of "log_probability", [0, 1] of the other scores."""
        return (-math.inf, 0.0) if self.score == "log_probability" else (0.0, 1.0)

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches the picture: by every score but `hit`."""
        return self.score != "hit"

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """What it will read that is known before outputs are: prompts and their wrong texts."""
        negatives = [
            text for prompt in prompts if self.column in prompt.meta for text in references_of(prompt, self.column)
        ]
        return [*(prompt.text for prompt in prompts), *negatives]

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures: how far each agrees more with its prompt than with the wrong texts of its row."""
        towers, images = self.towers, rollout.output
        texts = [prompt.text for prompt in rollout.prompts]
        # Of the prompts alone: the pictures stay where they are.
        negatives, scores = read_rows(self._wrong_texts, Rollout.of(rollout.prompts, texts), math.nan, self.needs)
        others, present = distinct([negatives.get(row, []) for row in range(len(texts))])
        seen = towers.images(images, getattr(torch, self.dtype))
        likeness = seen @ towers.texts(others, images.device).T if others else seen[:, :0]
        own = (seen * towers.texts(texts, images.device)).sum(1)
        value = self._scored(own, likeness, present.to(images.device))
        status = scores.status.to(images.device)
        scores_of_all = Scores(value.where(status == int(Status.OK), math.nan), status, info=scores.info)
        return mask_empty_prompts(scores_of_all, rollout.prompts)

    def _wrong_texts(self, prompt: Prompt, text: str) -> list[str]:
        negatives = references_of(prompt, self.column)
        if text in negatives:
            raise ValueError(f"Prompt.meta['{self.column}'] holds the prompt itself: {text[:60]!r}")
        return negatives

    def _scored(
        self, own: Float[Tensor, " B"], others: Float[Tensor, "B N"], present: Bool[Tensor, "B N"]
    ) -> Float[Tensor, " B"]:
        if self.score == "hit":
            return ((own[:, None] > others) | ~present).all(1).float()
        value = choice_log_probability(own, others, present, self.towers.scale)
        return value if self.score == "log_probability" else value.exp()
