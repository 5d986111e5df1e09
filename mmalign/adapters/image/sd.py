"""Stable Diffusion 1.x and 2.x (Rombach et al., 2112.10752): latent diffusion with a U-Net and one text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmalign.adapters.bases.conditions import warn_if_clip_cuts
from mmalign.adapters.image._unet_images import UNetImages
from mmalign.core.protocols import Condition


@dataclass
class SD(UNetImages):
    """`LatentAdapter` around `StableDiffusionPipeline`; predicts ε or v, as its scheduler says.

    The safety checker is not loaded. Sampling levels are DDIM's for the scheduler's config, whichever scheduler that
    is; x_0 is never clipped.
    """

    pipeline_name: ClassVar[str] = "StableDiffusionPipeline"

    def absent(self) -> tuple[str, ...]:
        """Name the components that guard or read images, which text to image does not need."""
        return ("safety_checker", "feature_extractor", "image_encoder")

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, 77, D) of CLIP."""
        warn_if_clip_cuts(self.name, text, self.loaded.pipeline.tokenizer)
        embeds, _ = self.loaded.pipeline.encode_prompt([text], self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds}

    def encode_negative(self) -> Condition:
        """Return the negative prompt's states (1, 77, D), as the pipeline makes them."""
        _, embeds = self.loaded.pipeline.encode_prompt(
            [""], self.device, 1, True, negative_prompt=[self.negative_prompt]
        )
        return {"encoder_hidden_states": embeds}


__all__ = ["SD"]
