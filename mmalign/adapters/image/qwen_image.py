"""Qwen-Image (Wu et al., 2508.02324): a rectified flow over packed latent tokens, told what to draw by a Qwen2.5-VL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.formats import Configs, Frame
from mmalign.adapters.bases.image_adapter import LatentImages
from mmalign.adapters.image._packing import PackedImages, pack, packed_frame, unpack
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel
from mmalign.loading.foreign import PretrainedModel


class FrameImages(LatentImages):
    """An `AutoencoderKLQwenImage` between latents and images, differentiable and in float32."""

    def _picture(self, x: Tensor) -> Tensor:
        z = x[:, :, None] * self._channels("latents_std", x) + self._channels("latents_mean", x)
        frames = self.vae.decoder(self.vae.post_quant_conv(z))
        return frames[:, :, 0] / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        z = self.vae.encode(images[:, :, None] * 2 - 1).latent_dist.mode()
        return ((z - self._channels("latents_mean", z)) / self._channels("latents_std", z))[:, :, 0]

    def _channels(self, name: str, like: Tensor) -> Tensor:
        stated = self.vae.config[name]
        return torch.tensor(stated, device=like.device, dtype=torch.float32).view(1, -1, 1, 1, 1)


@dataclass
class QwenImage(PackedImages):
    """`LatentAdapter` around `QwenImagePipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Every prompt is padded to `max_sequence_length` tokens and masked, so that a prediction does not depend on which
    prompts share its batch; the pipeline pads to the longest prompt of the batch, which is the same up to rounding.
    A longer prompt is cut, as the pipeline does, with a warning. The tokens of the instruction around the prompt that
    the pipeline drops are dropped, and what it keeps of it counts (about five tokens).

    Latents are (B, C, h, w); tokens, their positions and the autoencoder's frame axis stay inside.

    Nothing reads the text that leaves the last block, so the layers that make it get no gradient and stay as they are.

    Args:
        negative_prompt: what guidance leads away from; a space, as published, leads away from nothing in particular.
    """

    negative_prompt: str = " "

    pipeline_name: ClassVar[str] = "QwenImagePipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    )
    longest: ClassVar[int] = 1024
    images: ClassVar[type[LatentImages]] = FrameImages

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return the format of tokens over an autoencoder of videos, whose frame an image is."""
        return packed_frame(configs, 2 ** len(configs("vae")["temperal_downsample"]))

    def unread(self, network: PretrainedModel) -> list[str]:
        """Name the layers through which the text leaves the last block; nothing reads it."""
        last = len(network.transformer_blocks) - 1
        return [f"transformer_blocks.{last}.{part}." for part in ("attn.to_add_out", "txt_mlp")]

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Predict the velocity (B, C, h, w)."""
        height, width = x.shape[2:]
        tokens = self.module(
            hidden_states=pack(x),
            timestep=times.to(x.dtype) / 1000,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            **condition,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Combine as the pipeline: u + scale (c - u), each token then brought back to the length it has in c."""
        height, width = conditional.shape[2:]
        wanted = pack(conditional).norm(dim=-1, keepdim=True)
        combined = pack(unconditional + scale * (conditional - unconditional))
        length = combined.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # an all-zero token stays zero
        return unpack(combined * (wanted / length), height, width)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """Return the pipeline's sigmas: even, shifted by the number of tokens, stretched to the scheduler's last one.

        Raises ConfigError for a single step where they are stretched: the pipeline itself then divides by zero.
        """
        if num_inference_steps == 1 and self.scheduler.config.shift_terminal:
            raise ConfigError("num_inference_steps: 1 is too few for a scheduler with shift_terminal; take 2 or more.")
        return super().schedule(num_inference_steps)

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L, D) and `encoder_hidden_states_mask` (1, L), False at padding."""
        embeds, mask = self.loaded.pipeline.encode_prompt(
            prompt=[text], device=self.device, max_sequence_length=self.longest
        )
        length, room = embeds.shape[1], self.max_sequence_length
        warn_if_cut(self.name, text, self._count(text), room)
        mask = torch.ones(embeds.shape[:2], device=embeds.device) if mask is None else mask
        missing = max(0, room - length)
        return {
            "encoder_hidden_states": torch.nn.functional.pad(embeds[:, :room], (0, 0, 0, missing)),
            "encoder_hidden_states_mask": torch.nn.functional.pad(mask[:, :room].bool(), (0, missing)),
        }

    def _count(self, text: str) -> int:
        """Tokens of a prompt before any is cut."""
        pipe = self.loaded.pipeline
        written = pipe.tokenizer(pipe.prompt_template_encode.format(text)).input_ids
        return len(written) - int(pipe.prompt_template_encode_start_idx)


__all__ = ["QwenImage"]
