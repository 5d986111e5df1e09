"""The caption reward of "Fine-grained Image Captioning with CLIP Reward": CLIP-S, with a head against bad grammar."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmalign.core.files import require_local
from mmalign.core.options import NotNegative, Positive
from mmalign.core.tensor import without_gradient
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.functional import clip_score
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source
from mmalign.rewards.models.grammar_head import GrammarHead, load_grammar_head
from mmalign.rewards.models.pictured import captions_of, picture_features
from mmalign.rewards.parsing import Where

__all__ = ["ClipS"]


@dataclass
class ClipS(ReadsClip):
    """weight × CLIP-S(caption, picture) + grammar_weight × P(grammatical) (Cho et al. 2022, arXiv 2205.13115).

    CLIP-S is 2.5 max(cos, 0). The paper's self-critical form, this value minus that of the greedy caption, is
    `objective: {name: grpo, baseline: greedy, std: none}`. CLIP alone is hacked by captions that repeat what it likes;
    the head holds against it. A further CIDEr term is a slot of its own (`cider`, weight 1).

    Judges captions against `prompt.media["image"]`: without one a row is NOT_APPLICABLE, with one that cannot be read
    an ERROR; an empty caption is PARSE_FAIL. `parts`: `clip_s` and `grammar`.

    Args:
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`; the paper's is ViT-B-32-quickgelu.
        pretrained: its weights' tag.
        backend: which library reads `checkpoint`.
        head: safetensors of a grammar head trained on this model's text tower (reward `grammar`); "": none.
        weight: of CLIP-S.
        grammar_weight: of P(grammatical).
        prefix: put before a caption for CLIP, and not for the head.
        where: in an output the answer stands, see `parsing.answer_of`.
        clipped: CLIP-S as published; else 2.5 cos, which still tells captions apart where all cosines are negative.
    """

    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    head: str = ""
    weight: Positive = 2.0
    grammar_weight: NotNegative = 1.0
    prefix: str = "A photo depicts "
    clipped: bool = True
    where: Where = "whole"
    modalities = frozenset({"text"})
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)
        if min(self.weight, self.grammar_weight) < 0:
            raise ValueError(f"weights are not negative, got {self.weight} and {self.grammar_weight}")
        if self.head:
            require_local(self.head)

    @property
    def range(self) -> tuple[float, float]:
        """From 0 (or -2.5 `weight`, not clipped) to 2.5 `weight`, plus `grammar_weight` with a head."""
        most = 2.5 * self.weight
        return (0.0 if self.clipped else -most), most + (self.grammar_weight if self.head else 0.0)

    @property
    def layers(self) -> GrammarHead | None:
        """The grammar head, read on first use."""
        return load_grammar_head(self.head) if self.head else None

    def fingerprint(self) -> str:
        """Names the bytes of CLIP's weights and of the head's, and the preprocessing: a part of cache keys."""
        return f"{self.towers.fingerprint} {self.layers.digest() if self.layers else ''}"

    @without_gradient
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B captions by the pictures in `media["image"]`; `parts` has "clip_s" and, with a head, "grammar"."""
        captioned, scores = captions_of(rollout, self.range[0], where=self.where)
        if not captioned:
            return scores
        rows, towers = list(captioned), self.towers
        captions = [row.caption for row in captioned.values()]
        image = picture_features(towers, [row.picture for row in captioned.values()])
        cosine = (image * towers.texts([self.prefix + text for text in captions], image.device)).sum(1)
        parts = {"clip_s": (clip_score(cosine) if self.clipped else 2.5 * cosine).cpu()}
        scores.value[rows] = self.weight * parts["clip_s"]
        if self.layers:
            parts["grammar"] = self.layers.of(towers, captions).cpu()
            scores.value[rows] += self.grammar_weight * parts["grammar"]
        for name, part in parts.items():
            scores.parts[name] = torch.full((len(scores),), float("nan"))
            scores.parts[name][rows] = part
        return scores
