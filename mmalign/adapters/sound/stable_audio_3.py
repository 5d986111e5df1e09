"""Stable Audio 3 (2605.17991): stereo sound of any length by rectified flow over the latents of SAME.

Its own sampler, "ping-pong", redraws all noise at every step: x' = (1 - σ') x̂_0 + σ' ε is Gaussian with mean
(1 - σ') x̂_0 and standard deviation σ', and so a policy as it stands: that of `flow` with `sde: cps, noise_level: 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.diffusers_adapter import NegativeTextAdapter
from mmalign.adapters.bases.formats import Configs, SoundFormat
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.adapters.bases.sound_adapter import LatentSounds, SoundAdapter
from mmalign.core.errors import ConfigError
from mmalign.core.options import Positive
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.loading.foreign import Pipeline, PretrainedModel


@dataclass
class SameSounds(LatentSounds):
    """An `AutoencoderSAME`; it encodes without a distribution. `frames`: latents; `samples`: of the sound."""

    def __post_init__(self) -> None:
        """Say what the attention's masks are: of two axes, diffusers 0.42 takes them for (rows, tokens) if it can.

        Where as many rows come as a block has tokens, every row would see other neighbours than alone.
        """
        from diffusers.models.autoencoders.autoencoder_same import SAMEAttention

        for module in self.vae.modules():
            if isinstance(module, SAMEAttention):
                module.register_forward_pre_hook(_for_every_row, with_kwargs=True)

    @property
    def hop(self) -> int:
        """Samples of one latent frame."""
        return int(self.vae.downsampling_ratio)

    def _needed(self, x: Tensor) -> Tensor:
        return x

    def _latent(self, sound: Tensor) -> Tensor:
        return self.vae.encode(sound).latents


def _for_every_row(
    attention: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a mask (tokens, tokens) its two axes for rows and heads."""
    mask = named.get("attn_mask")
    return arguments, named if mask is None or mask.ndim != 2 else {**named, "attn_mask": mask[None, None]}


TOKENS = 256  # that the published models read, whatever their tokenizer would


@dataclass
class StableAudio3(FlowLevels, NegativeTextAdapter, SoundAdapter):
    """`LatentAdapter` around `StableAudio3Pipeline`; predicts the velocity at times in (0, 1).

    The distilled checkpoints sample in 8 ping-pong steps without guidance, the base ones in about 100 Euler steps with.

    Args:
        seconds: length of the sounds; the network is told it, and only the latents it needs are computed.
        logsnr: log-SNR of the sampling levels at noise and at data, the pipeline's own.
    """

    seconds: Positive = 10.0
    logsnr: tuple[float, float] = (-6.2, 2.0)

    pipeline_name: ClassVar[str] = "StableAudio3Pipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_qkv", "to_q", "to_kv", "to_out")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.logsnr[0] < self.logsnr[1]:
            raise ConfigError(f"logsnr: {self.logsnr[0]:g} at noise is not below {self.logsnr[1]:g} at data.")

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Return the autoencoder's rate in Hz and channels, and the longest sound that the network is told of."""
        vae = configs("vae")
        return SoundFormat(vae["sampling_rate"], vae["audio_channels"], float(configs("duration_embedder")["max_val"]))

    def open_outputs(self, pipe: Pipeline) -> SameSounds:
        """Set `latent_shape`, (channels, frames), and give the autoencoder."""
        vae, patch, longest = pipe.vae, pipe.transformer.config.patch_size, pipe.duration_embedder.config.max_val
        samples = int(self.seconds * vae.config.sampling_rate)
        if samples < 1 or self.seconds > longest:
            raise ConfigError(
                f"seconds: {self.seconds:g} is not a length this model makes; use more than 0 and at most {longest:g}."
            )
        frames = math.ceil(self.seconds * vae.config.sampling_rate / vae.downsampling_ratio)
        if frames % patch:
            raise ConfigError(
                f"seconds: {self.seconds:g} are {frames} latents and this model takes them by {patch}; the next length "
                f"up is {(frames // patch + 1) * patch * vae.downsampling_ratio / vae.config.sampling_rate:g}."
            )
        self.latent_shape = (vae.config.latent_dim, frames)
        return SameSounds(
            vae=vae, frames=frames, samples=samples, rows=self.decode_rows, recompute=self.gradient_checkpointing
        )

    def unread(self, network: PretrainedModel) -> list[str]:
        """Name what mixes a sound to be filled in into each block; there is none here."""
        return [f"transformer_blocks.{i}.to_local_embed." for i in range(len(network.transformer_blocks))]

    def sigmas(self, num_inference_steps: int) -> list[float]:
        """Return K levels even in log-SNR but for the first, which is noise; the last, not among them, is data."""
        low, high = self.logsnr
        at = torch.linspace(1, 0, num_inference_steps + 1)[:-1] if num_inference_steps > 0 else torch.zeros(0)
        sigmas = torch.sigmoid(at * (high - low) - high)
        sigmas[:1] = 1
        return sigmas.tolist()

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L + 1, D), their mask, and the length's `global_hidden_states` (1, E)."""
        pipe, device = self.loaded.pipeline, default_device(self.device)
        room = min(pipe.tokenizer.model_max_length, TOKENS)
        warn_if_cut(self.name, text, len(pipe.tokenizer(text).input_ids), room, "shorten it")
        states, mask = pipe.encode_prompt([text], device, 1)
        length = pipe.encode_duration(self.seconds, device, 1, 1)
        context, seen = pipe.prepare_cross_attention(states, mask, length)
        return {"encoder_hidden_states": context, "encoder_attention_mask": seen, "global_hidden_states": length}


__all__ = ["StableAudio3"]
