"""Stable Audio Open (Evans et al., 2407.14358): stereo sound at 44.1 kHz by latent diffusion with a transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import token_count, warn_if_cut
from mmalign.adapters.loading.described import Configs, Heard, sound_scale
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
from mmalign.adapters.loading.schedule import check_cosine, cosine_level, cosine_schedule
from mmalign.adapters.sound._latent_sounds import LatentSounds
from mmalign.core.errors import ConfigError, MissingExtra
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt


def _heard(configs: Configs) -> Heard:
    vae, told = configs("vae"), configs("projection_model")
    longest = configs("transformer")["sample_size"] * sound_scale(configs) / vae["sampling_rate"]
    return Heard(vae["sampling_rate"], vae["audio_channels"], min(longest, float(told["max_value"])))


@dataclass
class StableAudio:
    """`LatentAdapter` around `StableAudioPipeline`; predicts v at times in (0, 1), α = cos(π t / 2), σ = sin(π t / 2).

    With policy `ddpm`: η = 0 is the deterministic solver of first order on the pipeline's own levels, η = 1 its own
    scheduler at `solver_order` 1; the second-order steps it takes by default look back at earlier ones and so are no
    policy.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" (saved as peft loads it, for the pipeline knows no LoRA) or "full".
        lora: of the attention projections unless it names others.
        dtype: of frozen parts and of the network's arithmetic (autocast); trained weights and the autoencoder stay
            float32.
        seconds: length of the sounds; the model's longest by default. The network is told it, as in the pipeline.
        whole: generate latents of the model's full length, as it was trained and as its pipeline does, and cut the
            sound; otherwise only as many as `seconds` needs, which costs less and is not what the model has seen.
        negative_prompt: None for the empty condition of the pipeline.
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
    seconds: Positive | None = None
    whole: bool = True
    negative_prompt: str | None = None
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 4
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "audio"
    prediction: ClassVar[Prediction] = "v"
    pipeline_name: ClassVar[str] = "StableAudioPipeline"
    packages: ClassVar[dict[str, str]] = {"torchsde": "audio"}  # its scheduler's
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

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

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.loaded.pipeline.vae.config.sampling_rate)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError, CapabilityError or ConfigError naming the fault."""
        _check_installed()
        pipe = opened(self, "transformer")
        check_cosine(pipe.scheduler)
        vae, longest = pipe.vae, pipe.transformer.config.sample_size
        self.seconds = _checked_seconds(self.seconds, pipe)
        samples = int(self.seconds * vae.config.sampling_rate)
        frames = longest if self.whole else math.ceil(samples / vae.hop_length)
        self.latent_shape = (pipe.transformer.config.in_channels, frames)
        sounds = LatentSounds(vae, frames, samples, self.decode_rows, self.gradient_checkpointing)
        take(self, pipe, "transformer", sounds)
        return self

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L + 2, D), text and both ends in seconds; `global_hidden_states` (B, 1, 2 D)."""
        return self.loaded.conditions(texts_only(prompts, "stable_audio"))

    def predict(
        self, x: Float[Tensor, "B C frames"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C frames"]:
        """The predicted v, float32."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        width = self.loaded.pipeline.rotary_embed_dim
        places = torch.arange(x.shape[2] + 1, device=x.device)  # the first is the sound's length
        turns = get_1d_rotary_pos_embed(width, places, use_real=True, repeat_interleave_real=False)
        with mixed_precision(x.device, self.dtype):
            return self.module(  # type: ignore[no-any-return]
                x.to(input_dtype(self.train, self.dtype)),
                times,
                **condition,
                rotary_embedding=turns,
                return_dict=False,
            )[0].float()

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own levels."""
        return cosine_schedule(self.loaded.pipeline.scheduler, num_inference_steps, default_device(self.device))

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u: time u itself."""
        return cosine_level(u)

    def _encode_text(self, text: str) -> Condition:
        pipe = self.loaded.pipeline
        room = pipe.tokenizer.model_max_length
        warn_if_cut("stable_audio", text, token_count(pipe.tokenizer, text), room, "shorten it")
        return self._with_ends(pipe.encode_prompt([text], self.device, do_classifier_free_guidance=False))

    def _encode_negative(self) -> Condition:
        if self.negative_prompt is None:
            empty = self._encode_text("")
            return empty | {"encoder_hidden_states": torch.zeros_like(empty["encoder_hidden_states"])}
        both = self.loaded.pipeline.encode_prompt([""], self.device, True, negative_prompt=[self.negative_prompt])
        return self._with_ends(both[:1])

    def _with_ends(self, text: Tensor) -> Condition:
        """The text's states (1, L, D) with those of the sound's start and end."""
        start, end = self.loaded.pipeline.encode_duration(0.0, self.seconds, self.device, False, 1)
        return {
            "encoder_hidden_states": torch.cat([text, start, end], 1),
            "global_hidden_states": torch.cat([start, end], 2),
        }


def _check_installed() -> None:
    try:
        import torchsde  # noqa: F401
    except ImportError:
        raise MissingExtra("adapter stable_audio (its scheduler's package torchsde)", "audio") from None


def _checked_seconds(seconds: float | None, pipe: Any) -> float:
    """`seconds`, or the model's longest; ConfigError where it makes none of that length."""
    vae, told = pipe.vae, pipe.projection_model.config
    longest = pipe.transformer.config.sample_size * vae.hop_length / vae.config.sampling_rate
    if seconds is None:
        return min(longest, float(told.max_value))
    if not max(told.min_value, 1 / vae.config.sampling_rate) <= seconds <= min(longest, told.max_value):
        raise ConfigError(
            f"seconds: {seconds:g} is not a length this model makes; use more than {told.min_value:g} and at most "
            f"{min(longest, float(told.max_value)):g}."
        )
    return float(seconds)


__all__ = ["StableAudio"]
