"""RefCLIPScore: how well a caption agrees with its picture and with what people wrote about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmalign.core.tensor import without_gradient
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards.columns import NeedsColumn, references_of
from mmalign.rewards.functional import ref_clip_score
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source
from mmalign.rewards.models.pictured import Captioned, captions_of, picture_features
from mmalign.rewards.parsing import Where

__all__ = ["RefClipScore"]


@dataclass
class RefClipScore(NeedsColumn, ReadsClip):
    """The harmonic mean of CLIP-S and the best cosine with a reference (Hessel et al. 2021, eq. 2), in [0, 10/7].

    Only the picture's term is multiplied by 2.5 (`functional.ref_clip_score`). Judges captions against
    `prompt.media["image"]`, with statuses as `clip_s`'s.

    Args:
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag.
        backend: which library reads `checkpoint`.
        column: of `Prompt.meta`: a reference, or a list of them.
        prefix: put before captions and references.
        where: in an output the answer stands, see `parsing.answer_of`.
    """

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    column: str = "references"
    prefix: str = "A photo depicts "
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (0.0, 10 / 7)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """What it will read that is known before outputs are: the references."""
        known = [prompt for prompt in prompts if self.column in prompt.meta]
        return [self.prefix + text for prompt in known for text in references_of(prompt, self.column)]

    @without_gradient
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B captions by the picture and the references of their rows; see the class for what lacks either."""
        captioned, scores = captions_of(
            rollout, self.range[0], self.needs, lambda p: references_of(p, self.column), self.where
        )
        if captioned:
            scores.value[list(captioned)] = self._values(list(captioned.values())).cpu()
        return scores

    def _values(self, rows: list[Captioned]) -> torch.Tensor:
        towers = self.towers
        image = picture_features(towers, [row.picture for row in rows])
        captions = towers.texts([self.prefix + row.caption for row in rows], image.device)
        likeness = torch.full((len(rows), max(len(row.references) for row in rows)), float("nan"), device=image.device)
        for place, row in enumerate(rows):
            written = towers.texts([self.prefix + text for text in row.references], image.device)
            likeness[place, : len(written)] = written @ captions[place]
        return ref_clip_score((image * captions).sum(1), likeness)
