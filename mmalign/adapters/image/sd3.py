"""Stable Diffusion 3 and 3.5 (Esser et al., 2403.03206): a rectified flow with a multimodal transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mmalign.adapters.bases.conditions import token_count, warn_if_clip_cuts, warn_if_cut
from mmalign.adapters.bases.formats import Configs, Frame, image_scale
from mmalign.adapters.bases.image_adapter import ImageAdapter
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor


@dataclass
class SD3(FlowLevels, ImageAdapter):
    """`LatentAdapter` around `StableDiffusion3Pipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Args:
        max_sequence_length: T5 tokens, padded to; what is over is cut with a warning.
        text_encoder_3: false leaves the T5 encoder out, as diffusers allows.
    """

    max_sequence_length: AtLeastOne = 256
    text_encoder_3: bool = True

    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    )
    optional: ClassVar[tuple[str, ...]] = ("text_encoder_3", "tokenizer_3")

    def absent(self) -> tuple[str, ...]:
        """Name the components that read images, and T5's where it is left out."""
        return ("image_encoder", "feature_extractor", *(() if self.text_encoder_3 else self.optional))

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return the format of images, whose positions end at `pos_embed_max_size` patches a side."""
        network, scale = configs("transformer"), image_scale(configs)
        side, native = network["patch_size"] * scale, (network["sample_size"] * scale,) * 2
        return Frame(network["in_channels"], native, side, network["pos_embed_max_size"] * side)

    def image_tokens(self) -> int:
        """Count the patches of an image, each a token of the network."""
        patch = self.loaded.pipeline.transformer.config.patch_size
        return (self.latent_shape[1] // patch) * (self.latent_shape[2] // patch)

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """Predict the velocity (B, C, h, w)."""
        return self.module(hidden_states=x, timestep=times, **condition, return_dict=False)[0]

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L, D) and `pooled_projections` (1, P)."""
        pipe = self.loaded.pipeline
        warn_if_clip_cuts(self.name, text, pipe.tokenizer, pipe.tokenizer_2)
        if pipe.tokenizer_3 is not None:
            warn_if_cut(self.name, text, token_count(pipe.tokenizer_3, text), self.max_sequence_length)
        embeds, _, pooled, _ = self._encode_prompt(text, guided=False)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def encode_negative(self) -> Condition:
        """Return the negative prompt's states (1, L, D) and projections (1, P), as the pipeline makes them."""
        _, embeds, _, pooled = self._encode_prompt("", guided=True)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_prompt(self, text: str, guided: bool) -> Any:
        return self.loaded.pipeline.encode_prompt(
            prompt=[text],
            prompt_2=None,
            prompt_3=None,
            negative_prompt=[self.negative_prompt],
            do_classifier_free_guidance=guided,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )


__all__ = ["SD3"]
