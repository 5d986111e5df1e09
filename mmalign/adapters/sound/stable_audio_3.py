"""Stable Audio 3 (2605.17991): stereo sound of any length by rectified flow over the latents of SAME.

Its own sampler, "ping-pong", redraws all noise at every step: x' = (1 - σ') x̂_0 + σ' ε is Gaussian with mean
(1 - σ') x̂_0 and standard deviation σ', and so a policy as it stands: that of `flow` with `sde: cps, noise_level: 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.described import Configs, Heard
from mmalign.adapters.loading.loaded import Loaded, opened, take
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    input_dtype,
    mixed_precision,
    not_loaded,
    texts_only,
)
from mmalign.adapters.loading.schedule import flow_level, flow_schedule
from mmalign.adapters.sound._same_sounds import SameSounds
from mmalign.core.errors import ConfigError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt

TOKENS = 256  # that the published models read, whatever their tokenizer would


def _heard(configs: Configs) -> Heard:
    vae = configs("vae")
    return Heard(vae["sampling_rate"], vae["audio_channels"])


@dataclass
class StableAudio3:
    """`LatentAdapter` around `StableAudio3Pipeline`; predicts the velocity at times in (0, 1).

    The distilled checkpoints sample in 8 ping-pong steps without guidance, the base ones in about 100 Euler steps with.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" (saved as peft loads it, for the pipeline knows no LoRA) or "full".
        lora: of the attention projections unless it names others.
        dtype: of frozen parts and of the network's arithmetic (autocast); trained weights and the autoencoder stay
            float32.
        seconds: length of the sounds; the network is told it, and only the latents it needs are computed.
        logsnr: log-SNR of the sampling levels at noise and at data, the pipeline's own.
        negative_prompt: of guidance; the pipeline's own is the empty text.
        gradient_checkpointing: recompute the network's blocks and the decoder in backward.
        offload_text_encoder: keep it on the CPU while it does not work.
        decode_rows: sounds decoded at once.
        cached_prompts: prompts whose conditions are kept on the CPU.
        revision, variant: of the Hub's files.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    seconds: Positive = 10.0
    logsnr: tuple[float, float] = (-6.2, 2.0)
    negative_prompt: str = ""
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 4
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "audio"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "StableAudio3Pipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_qkv", "to_q", "to_kv", "to_out")

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)

    heard = staticmethod(_heard)
    reference = _loaded.reference
    trainable = _loaded.trainable
    save = _loaded.save
    restore = _loaded.restore
    unconditional = _loaded.unconditional
    guide = _loaded.guide
    decode = _loaded.decode
    latents = _loaded.latents
    _encode_negative = _loaded.encode_negative

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts")
        if not self.logsnr[0] < self.logsnr[1]:
            raise ConfigError(f"logsnr: {self.logsnr[0]:g} at noise is not below {self.logsnr[1]:g} at data.")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.loaded.pipeline.vae.config.sampling_rate)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError, CapabilityError or ConfigError naming the fault."""
        pipe = opened(self, "transformer")
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
        take(
            self,
            pipe,
            "transformer",
            SameSounds(vae, frames, samples, self.decode_rows, self.gradient_checkpointing),
        )
        return self

    def unread(self, network: Any) -> list[str]:
        """What mixes a sound to be filled in into each block; none is given here."""
        return [f"transformer_blocks.{i}.to_local_embed." for i in range(len(network.transformer_blocks))]

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L + 1, D), text and length, their mask, and `global_hidden_states` (B, E)."""
        return self.loaded.conditions(texts_only(prompts, "stable_audio_3"))

    def predict(
        self, x: Float[Tensor, "B C frames"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C frames"]:
        """The predicted velocity, float32."""
        with mixed_precision(x.device, self.dtype):
            answer = self.module(x.to(input_dtype(self.train, self.dtype)), times, **condition, return_dict=False)[0]
        return answer.float()  # type: ignore[no-any-return]

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own levels, even in log-SNR but for the first, which is noise, and the last, which is data."""
        low, high = self.logsnr
        at = torch.linspace(1, 0, num_inference_steps + 1)[:-1] if num_inference_steps > 0 else torch.zeros(0)
        sigmas = torch.sigmoid(at * (high - low) - high)
        sigmas[:1] = 1
        device = default_device(self.device)
        return flow_schedule(self.loaded.pipeline.scheduler, num_inference_steps, device, sigmas=sigmas.tolist())

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u: σ = u."""
        return flow_level(self.loaded.pipeline.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        pipe, device = self.loaded.pipeline, default_device(self.device)
        room = min(pipe.tokenizer.model_max_length, TOKENS)
        warn_if_cut("stable_audio_3", text, len(pipe.tokenizer(text).input_ids), room, "shorten it")
        states, mask = pipe.encode_prompt([text], device, 1)
        told = pipe.encode_duration(self.seconds, device, 1, 1)
        context, seen = pipe.prepare_cross_attention(states, mask, told)
        return {"encoder_hidden_states": context, "encoder_attention_mask": seen, "global_hidden_states": told}


__all__ = ["StableAudio3"]
