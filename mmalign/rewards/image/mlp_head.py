"""A small head on CLIP features: aesthetic predictors, linear preference heads, heads of ImageReward's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError
from mmalign.core.files import require_local
from mmalign.core.options import Positive
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards.engine.contract import mask_empty_prompts
from mmalign.rewards.models.clip_towers import Backend, ReadsClip, Source
from mmalign.rewards.models.head import Activation, Head, read_head

__all__ = ["MLPHead"]


@dataclass
class MLPHead(ReadsClip):
    """(head(features) - mean) / std of the L2-normalised CLIP features of a picture; differentiable in the pixels.

    | head | layers | options | weights |
    |---|---|---|---|
    | LAION aesthetic v2 | `layers.N`, N = 0, 2, 4, 6, 7: 768-1024-128-64-16-1 | the defaults (ViT-L/14) | published |
    | a weighted cosine, such as PickScore's | `0`: D-1 | features: product | all exp(logit_scale) |
    | ImageReward's shape | `mlp.layers.N`: 768-1024-128-64-16-1 | mean 0.16717, std 1.03334 | see below |

    None of these has an activation, so at evaluation (no dropout) each is one affine map, and is folded into one.
    ImageReward's own weights read the features of its BLIP, which no CLIP model gives: here only its shape is of use,
    for a head trained on CLIP features. Pickled weights are not read: `mmalign convert head.pth head.safetensors`.

    Args:
        head: safetensors of linear layers named `…N.weight` (out, in) and `…N.bias`, applied in the order of N; the
            last has one output. Other tensors are ignored.
        checkpoint: the CLIP model, as reward `clip`'s.
        model: an architecture of open_clip's list, instead of `checkpoint`.
        pretrained: its weights' tag, or a safetensors file of them.
        backend: which library reads `checkpoint`.
        features: what the head sees: the picture's (B, D); the picture's, then the prompt's (B, 2D); or their product
            (B, D). Where it sees the prompt, an empty one is NOT_APPLICABLE.
        activation: between the layers.
        mean, std: the published normalisation of the score, if there is one.
        range: of the values; LAION's raters gave 1 to 10, predictions of odd pictures lie outside.
    """

    head: str
    checkpoint: str = ""
    model: str = ""
    pretrained: str = ""
    backend: Backend = "auto"
    features: Literal["image", "image_and_text", "product"] = "image"
    activation: Activation = "none"
    mean: float = 0.0
    std: Positive = 1.0
    range: tuple[float, float] = (-20.0, 30.0)
    modalities = frozenset({"image"})
    differentiable = True
    deterministic = True
    version = "2"  # empty prompts have no score

    def __post_init__(self) -> None:
        self._source = Source(self.checkpoint, self.model, self.pretrained, self.backend)
        require_local(self.head)
        if self.std <= 0:
            raise ConfigError(f"std: {self.std} must be positive.")

    @cached_property
    def layers(self) -> Head:
        """The head, read on first use."""
        return read_head(self.head, self.activation)

    def fingerprint(self) -> str:
        """Names the bytes of CLIP's weights and of the head's, and the preprocessing: a part of cache keys."""
        return f"{self.towers.fingerprint} {self.layers.digest()}"

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """What it will read that is known before outputs are: the prompts, where the head sees them."""
        return [] if self.features == "image" else [prompt.text for prompt in prompts]

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures (B, 3, H, W): (head's output - mean) / std. ConfigError where head and CLIP do not fit."""
        features = self._features(rollout)
        if features.shape[1] != self.layers.width:
            raise ConfigError(
                f"head: {self.head} takes {self.layers.width} features, but the CLIP model gives {features.shape[1]} "
                f"(features: {self.features})."
            )
        scores = Scores.of((self.layers(features) - self.mean) / self.std)
        return scores if self.features == "image" else mask_empty_prompts(scores, rollout.prompts)

    def _features(self, rollout: Rollout) -> Float[Tensor, "B F"]:
        picture = self.towers.images(rollout.output)
        if self.features == "image":
            return picture
        prompt = self.towers.texts([prompt.text for prompt in rollout.prompts], picture.device)
        return picture * prompt if self.features == "product" else torch.cat([picture, prompt], 1)
