"""LAION's aesthetic predictor v2 (christophschuhmann/improved-aesthetic-predictor): how pleasing a picture is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmalign.core.errors import ConfigError
from mmalign.rewards.image.mlp_head import MLPHead
from mmalign.rewards.models.clip_towers import Backend
from mmalign.rewards.models.head import Activation

__all__ = ["LaionAesthetic"]

_FILE = "sac+logos+ava1-l14-linearMSE"


@dataclass
class LaionAesthetic(MLPHead):
    """Reward `mlp_head` with LAION's predictor, as its repository computes it (its `simple_inference.py`).

    Five linear layers without activation on the L2-normalised features of OpenAI's CLIP ViT-L/14 (that repository loads
    OpenAI's weights, which have QuickGELU). About 1 to 10, as people rated; odd pictures lie outside. The prompt is not
    looked at.

    The head is published pickled and is converted once:

        mmalign convert sac+logos+ava1-l14-linearMSE.pth sac+logos+ava1-l14-linearMSE.safetensors

    Args:
        head: the converted file.
        checkpoint: a folder or Hub id of CLIP ViT-L/14, instead of open_clip's download of OpenAI's weights.
    """

    head: str = ""
    checkpoint: str = ""
    model: str = field(default="", init=False)
    pretrained: str = field(default="", init=False)
    backend: Backend = "auto"
    features: Literal["image", "image_and_text", "product"] = field(default="image", init=False)
    activation: Activation = field(default="none", init=False)
    mean: float = field(default=0.0, init=False)
    std: float = field(default=1.0, init=False)
    range: tuple[float, float] = field(default=(-20.0, 30.0), init=False)

    def __post_init__(self) -> None:
        if not self.head:
            raise ConfigError(
                f"head: name the predictor's weights; they are published pickled ({_FILE}.pth of "
                "github.com/christophschuhmann/improved-aesthetic-predictor), and are converted once: mmalign convert "
                f"{_FILE}.pth {_FILE}.safetensors; then head: {_FILE}.safetensors."
            )
        if not self.checkpoint:
            self.model, self.pretrained = "ViT-L-14-quickgelu", "openai"
        super().__post_init__()
