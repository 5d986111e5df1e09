"""PickScore: which picture people prefer for a prompt (yuvalkirstain/PickScore_v1; Kirstain et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmalign.rewards.image.clip import Clip
from mmalign.rewards.models.clip_towers import Backend

__all__ = ["PickScore"]


@dataclass
class PickScore(Clip):
    """Reward `clip` with the model of arXiv 2305.01569: a CLIP ViT-H/14 tuned on Pick-a-Pic, cosine times its scale.

    As its repository computes it (github.com/yuvalkirstain/PickScore, README): the prompt as it is, cut at 77 tokens;
    CLIP's own preprocessing; exp(logit_scale) times the cosine. The range is ± that scale, which CLIP holds below 100;
    pictures score about 20 (flow_grpo divides by 26, which `weight` does here). About 4 GB are downloaded on first use.

    Args:
        checkpoint: the published model, or a local copy of it (`config.json`, safetensors, tokenizer, preprocessor).
        processor: where tokenizer and preprocessing lie, if not beside the checkpoint.
        dtype: of the vision tower's arithmetic.
    """

    checkpoint: str = "yuvalkirstain/PickScore_v1"
    model: str = field(default="", init=False)
    pretrained: str = field(default="", init=False)
    backend: Backend = field(default="transformers", init=False)
    score: Literal["cosine", "clip_score", "logit"] = field(default="logit", init=False)
    prefix: str = field(default="", init=False)
