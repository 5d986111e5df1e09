"""Stable Diffusion XL (Podell et al., 2307.01952): a U-Net with two text encoders and size conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.adapters.bases.conditions import warn_if_clip_cuts
from mmalign.adapters.image._unet_images import UNetImages
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt


@dataclass
class SDXL(UNetImages):
    """`LatentAdapter` around `StableDiffusionXLPipeline`; predicts ε or v, as its scheduler says.

    With `negative_prompt` "" the unconditional embedding is zero where the checkpoint's config says
    `force_zeros_for_empty_prompt`, as in the pipeline. Sampling levels are DDIM's for the scheduler's config, whichever
    scheduler that is; x_0 is never clipped.
    """

    pipeline_name: ClassVar[str] = "StableDiffusionXLPipeline"

    def absent(self) -> tuple[str, ...]:
        """Name the components that read images, which text to image does not need."""
        return ("feature_extractor", "image_encoder")

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """Predict ε or v (B, C, h, w)."""
        states, added = condition["encoder_hidden_states"], {k: condition[k] for k in ("text_embeds", "time_ids")}
        return self.module(x, times, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False)[0]

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Conditions of B prompts; the sizes of a given picture are its own, as the prompt's placement has them."""
        condition = super().encode(prompts)
        if not any(prompt.placement for prompt in prompts):
            return condition
        sizes = condition["time_ids"].clone()
        for row, prompt in enumerate(prompts):
            if (place := prompt.placement) is not None:
                numbers = (*place.original, *(max(0, side) for side in place.corner), *place.size)
                sizes[row] = torch.tensor(numbers, dtype=sizes.dtype)
        return {**condition, "time_ids": sizes}

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, 77, D), `text_embeds` (1, P) and `time_ids` (1, 6) in pixels."""
        pipe = self.loaded.pipeline
        warn_if_clip_cuts(self.name, text, *(t for t in (pipe.tokenizer, pipe.tokenizer_2) if t is not None))
        embeds, _, pooled, _ = pipe.encode_prompt([text], device=self.device, do_classifier_free_guidance=False)
        return self._with_size(embeds, pooled)

    def encode_negative(self) -> Condition:
        """Return the negative prompt's condition; zeros for "" where the checkpoint says so."""
        negative = [self.negative_prompt] if self.negative_prompt else None
        _, embeds, _, pooled = self.loaded.pipeline.encode_prompt([""], device=self.device, negative_prompt=negative)
        return self._with_size(embeds, pooled)

    def _with_size(self, embeds: Tensor, pooled: Tensor) -> Condition:
        # (original height, width, crop top, left, target height, width): an uncropped image of the size we make.
        size = torch.tensor([[self.height, self.width, 0, 0, self.height, self.width]], dtype=torch.float32)
        return {"encoder_hidden_states": embeds, "text_embeds": pooled, "time_ids": size}


__all__ = ["SDXL"]
