"""FLUX.1, dev and schnell (Black Forest Labs, 2024): a rectified flow over packed latent tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmalign.adapters.bases.conditions import token_count, warn_if_cut
from mmalign.adapters.bases.formats import Configs, Frame, image_scale
from mmalign.adapters.image._packing import PackedImages, pack, packed_frame, unpack
from mmalign.core.options import NotNegative
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor


@dataclass
class Flux(PackedImages):
    """`LatentAdapter` around `FluxPipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Two guidances exist. `embedded_guidance` is the pipeline's `guidance_scale`: a number that guidance-distilled
    checkpoints (dev) take as input, the same for every prediction, the reference's too; checkpoints without it
    (schnell) ignore it. `guide` is the pipeline's `true_cfg_scale`: two predictions combined; published checkpoints
    are meant to run without it.

    Args:
        embedded_guidance: see above.
        max_sequence_length: T5 tokens, padded to (at most 512; schnell was made for 256); what is over is cut with a
            warning.
    """

    embedded_guidance: NotNegative = 3.5

    pipeline_name: ClassVar[str] = "FluxPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    longest: ClassVar[int] = 512

    def absent(self) -> tuple[str, ...]:
        """Name the components that read images, which text to image does not need."""
        return ("image_encoder", "feature_extractor")

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return the format of tokens over an autoencoder that halves the sides between its blocks."""
        return packed_frame(configs, image_scale(configs))

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Predict the velocity (B, C, h, w); the embedded guidance goes in where the checkpoint has a place for it."""
        height, width = x.shape[2:]
        tokens = self.module(
            hidden_states=pack(x),
            timestep=times.to(x.dtype) / 1000,
            guidance=self._guidance(x),
            img_ids=_positions(height // 2, width // 2, x.device),
            txt_ids=torch.zeros(condition["encoder_hidden_states"].shape[1], 3, device=x.device),
            **condition,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def _guidance(self, x: Tensor) -> Tensor | None:
        if not self.loaded.pipeline.transformer.config.guidance_embeds:
            return None
        return torch.full((len(x),), self.embedded_guidance, device=x.device, dtype=torch.float32)

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` of T5 (1, L, D) and `pooled_projections` of CLIP (1, P)."""
        tokens = token_count(self.loaded.pipeline.tokenizer_2, text)
        warn_if_cut(self.name, text, tokens, self.max_sequence_length)
        embeds, pooled, _ = self.loaded.pipeline.encode_prompt(
            prompt=[text], prompt_2=None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """(0, row, column) of each image token, (rows · columns, 3); text tokens are at (0, 0, 0)."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()


__all__ = ["Flux"]
