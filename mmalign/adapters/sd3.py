"""Stable Diffusion 3 and 3.5 (Esser et al., 2403.03206): a rectified flow with a multimodal transformer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmalign.adapters._conditions import Conditions
from mmalign.adapters._decode import LatentImages
from mmalign.adapters._loading import modules, open_pipeline
from mmalign.adapters._lora import LoRA
from mmalign.adapters._options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    image_size,
    input_dtype,
    mixed_precision,
    not_loaded,
    texts_only,
    torch_dtype,
)
from mmalign.adapters._schedule import dynamic_shift, flow_level, flow_schedule
from mmalign.adapters._weights import Weights, make_trainable
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.types import Modality, NoiseLevel, Prompt


@dataclass
class SD3:
    """`LatentAdapter` around `StableDiffusion3Pipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    trained size by default. `text_encoder_3=False` leaves the T5 encoder out, as diffusers allows. `decode_rows`:
    images decoded at once. `cached_prompts`: prompts whose conditions are kept on the CPU.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: torch.device | str | None = None
    resolution: int | None = None
    height: int | None = None
    width: int | None = None
    negative_prompt: str = ""
    max_sequence_length: int = 256
    text_encoder_3: bool = True
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: int = 8
    cached_prompts: int = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    )

    module: nn.Module = field(init=False, repr=False, compare=False)
    pipeline: Any = field(init=False, repr=False, compare=False)
    weights: Weights = field(init=False, repr=False, compare=False)
    conditions: Conditions = field(init=False, repr=False, compare=False)
    images: LatentImages = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_sequence_length")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = device = default_device(self.device)
        dtypes = {"default": torch_dtype(self.dtype), "vae": torch.float32}
        dtypes["transformer"] = input_dtype(self.train, self.dtype)
        absent, t5 = ("image_encoder", "feature_extractor"), ("text_encoder_3", "tokenizer_3")
        self.pipeline = pipe = open_pipeline(
            self.pipeline_name,
            self.model,
            dtypes,
            revision=self.revision,
            variant=self.variant,
            absent=absent if self.text_encoder_3 else (*absent, *t5),
            optional=t5,
        )
        native = (pipe.transformer.config.sample_size * pipe.vae_scale_factor,) * 2
        multiple = pipe.transformer.config.patch_size * pipe.vae_scale_factor
        self.height, self.width = image_size(self.resolution, self.height, self.width, native, multiple)
        self.latent_shape = (
            pipe.transformer.config.in_channels,
            self.height // pipe.vae_scale_factor,
            self.width // pipe.vae_scale_factor,
        )
        self.weights = make_trainable(self.train, pipe, "transformer", self.lora, self.lora_targets)
        self.module = pipe.transformer.to(device)
        if self.gradient_checkpointing:
            pipe.transformer.enable_gradient_checkpointing()
        self.images = LatentImages(pipe.vae.to(device), self.decode_rows, self.gradient_checkpointing)
        encoders = [part for name, part in modules(pipe).items() if name.startswith("text_encoder")]
        self.conditions = Conditions(
            self._encode_text, self._encode_negative, encoders, device, self.offload_text_encoder, self.cached_prompts
        )
        return self

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return self.weights.trainable()

    def save(self, directory: Path) -> None:
        """Write the LoRA file, or the `transformer` folder, that plain diffusers loads."""
        self.weights.save(directory)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        self.weights.restore(directory)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L, D) and `pooled_projections` (B, P)."""
        return self.conditions(texts_only(prompts, "sd3"))

    def unconditional(self, rows: int) -> Condition:
        """The same of the negative prompt."""
        return self.conditions.unconditional(rows)

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The velocity, float32."""
        with mixed_precision(x.device, self.dtype):
            return self.module(  # type: ignore[no-any-return]
                hidden_states=x.to(input_dtype(self.train, self.dtype)), timestep=times, **condition, return_dict=False
            )[0].float()

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans, 2207.12598) as the pipeline writes it: u + scale (c - u)."""
        return unconditional + scale * (conditional - unconditional)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas, shifted as its scheduler says."""
        patch = self.pipeline.transformer.config.patch_size
        tokens = (self.latent_shape[1] // patch) * (self.latent_shape[2] // patch)
        scheduler = self.pipeline.scheduler
        return flow_schedule(
            scheduler, num_inference_steps, default_device(self.device), dynamic_shift(scheduler, tokens)
        )

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, shifted as the scheduler's config says."""
        return flow_level(self.pipeline.scheduler, u)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], not clamped, with gradient to x."""
        return self.images.decode(x)

    def latents(self, output: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mode of the autoencoder's latents for images in [0, 1]."""
        return self.images.latents(output)

    def _encode_text(self, text: str) -> Condition:
        embeds, _, pooled, _ = self._encode_prompt(text, guided=False)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_negative(self) -> Condition:
        _, embeds, _, pooled = self._encode_prompt("", guided=True)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_prompt(self, text: str, guided: bool) -> Any:
        return self.pipeline.encode_prompt(
            prompt=[text],
            prompt_2=None,
            prompt_3=None,
            negative_prompt=[self.negative_prompt],
            do_classifier_free_guidance=guided,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )


__all__ = ["SD3"]
