"""HPS v2 and v2.1: which picture people prefer for a prompt (xswu/HPSv2; Wu et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmalign.core.errors import ConfigError
from mmalign.core.files import local_path
from mmalign.rewards.image.clip import Clip
from mmalign.rewards.models.clip_towers import Backend, Source

__all__ = ["HPSv2"]

# Their `light_augmentation` resizes the longer side, pads with black and does not clamp what bicubic overshoots.
_PREPROCESS = (("resize", "longest"), ("clamped", False))


@dataclass
class HPSv2(Clip):
    """Reward `clip` with the models of arXiv 2306.09341: open_clip's ViT-H/14 tuned on HPD v2, the cosine in [-1, 1].

    As its repository computes it (github.com/tgxs002/HPSv2, `img_score.py` and its `open_clip/transform.py`): the
    prompt as it is; the picture with its longer side resized to 224 pixels, padded with black to a square, CLIP's mean
    and deviation; the cosine without the logit scale. Its benchmark gives 100 times the mean: 23 (GLIDE) to 28 in v2;
    scores of v2 and v2.1 do not compare.

    The weights are published pickled, and are converted once:

        hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir .
        mmalign convert HPS_v2.1_compressed.pt HPS_v2.1.safetensors

    Args:
        checkpoint: the converted file, of v2 or v2.1; or an open_clip folder that holds one.
        model: the architecture of a file.
        dtype: of the vision tower's arithmetic.
    """

    checkpoint: str = ""
    model: str = "ViT-H-14"
    pretrained: str = field(default="", init=False)
    backend: Backend = field(default="open_clip", init=False)
    processor: str = field(default="", init=False)
    score: Literal["cosine", "clip_score", "logit"] = field(default="cosine", init=False)
    prefix: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError(
                "checkpoint: name the weights; they are published pickled (HPS_v2.1_compressed.pt of xswu/HPSv2), and "
                "are converted once: hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir . && mmalign convert "
                "HPS_v2.1_compressed.pt HPS_v2.1.safetensors; then checkpoint: HPS_v2.1.safetensors."
            )
        place = local_path(self.checkpoint)
        folder = place.is_dir() if place is not None else self.checkpoint.startswith("hf-hub:")
        self._source = (
            Source(checkpoint=self.checkpoint, backend="open_clip", preprocess=_PREPROCESS)
            if folder
            else Source(model=self.model, pretrained=self.checkpoint, preprocess=_PREPROCESS)
        )
