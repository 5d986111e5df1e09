"""Stable Diffusion 1.x and 2.x (Rombach et al., 2112.10752): latent diffusion with a U-Net and one text encoder."""

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
from mmalign.adapters._loading import open_pipeline
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
from mmalign.adapters._schedule import ddim_level, ddim_prediction, ddim_schedule
from mmalign.adapters._unet import check_plain, native_pixels
from mmalign.adapters._weights import Weights, make_trainable
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.types import Modality, NoiseLevel, Prompt


@dataclass
class SD:
    """`LatentAdapter` around `StableDiffusionPipeline`; predicts ε or v, as its scheduler says.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    trained size by default. `decode_rows`: images decoded at once. `cached_prompts`: prompts whose conditions are kept
    on the CPU. The safety checker is not loaded. Sampling levels are DDIM's for the scheduler's config, whichever
    scheduler that is; x_0 is never clipped.
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
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: int = 8
    cached_prompts: int = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    pipeline_name: ClassVar[str] = "StableDiffusionPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    module: nn.Module = field(init=False, repr=False, compare=False)
    pipeline: Any = field(init=False, repr=False, compare=False)
    weights: Weights = field(init=False, repr=False, compare=False)
    conditions: Conditions = field(init=False, repr=False, compare=False)
    images: LatentImages = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    prediction: Prediction = field(default="epsilon", init=False, repr=False, compare=False)  # load() reads which

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = device = default_device(self.device)
        dtypes = {"default": torch_dtype(self.dtype), "vae": torch.float32}
        dtypes["unet"] = input_dtype(self.train, self.dtype)
        self.pipeline = pipe = open_pipeline(
            self.pipeline_name,
            self.model,
            dtypes,
            revision=self.revision,
            variant=self.variant,
            absent=("safety_checker", "feature_extractor", "image_encoder"),
        )
        check_plain(pipe, self.model)
        self.prediction = ddim_prediction(pipe.scheduler)
        scale = pipe.vae_scale_factor
        native = native_pixels(pipe)
        self.height, self.width = image_size(self.resolution, self.height, self.width, native, scale)
        self.latent_shape = (pipe.unet.config.in_channels, self.height // scale, self.width // scale)
        self.weights = make_trainable(self.train, pipe, "unet", self.lora, self.lora_targets)
        self.module = pipe.unet.to(device)
        if self.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        self.images = LatentImages(pipe.vae.to(device), self.decode_rows, self.gradient_checkpointing)
        self.conditions = Conditions(
            self._encode_text,
            self._encode_negative,
            [pipe.text_encoder],
            device,
            self.offload_text_encoder,
            self.cached_prompts,
        )
        return self

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return self.weights.trainable()

    def save(self, directory: Path) -> None:
        """Write the LoRA file, or the `unet` folder, that plain diffusers loads."""
        self.weights.save(directory)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        self.weights.restore(directory)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, 77, D)."""
        return self.conditions(texts_only(prompts, "sd"))

    def unconditional(self, rows: int) -> Condition:
        """The same of the negative prompt."""
        return self.conditions.unconditional(rows)

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The predicted ε or v, float32."""
        with mixed_precision(x.device, self.dtype):
            answer = self.module(x.to(input_dtype(self.train, self.dtype)), times, **condition, return_dict=False)[0]
        return answer.float()  # type: ignore[no-any-return]

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans, 2207.12598) as the pipeline writes it: u + scale (c - u)."""
        return unconditional + scale * (conditional - unconditional)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """DDIM's levels for the scheduler's config."""
        return ddim_schedule(self.pipeline.scheduler, num_inference_steps, default_device(self.device))

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u."""
        return ddim_level(self.pipeline.scheduler, u)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], not clamped, with gradient to x."""
        return self.images.decode(x)

    def latents(self, output: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mode of the autoencoder's latents for images in [0, 1]."""
        return self.images.latents(output)

    def _encode_text(self, text: str) -> Condition:
        embeds, _ = self.pipeline.encode_prompt([text], self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds}

    def _encode_negative(self) -> Condition:
        _, embeds = self.pipeline.encode_prompt([""], self.device, 1, True, negative_prompt=[self.negative_prompt])
        return {"encoder_hidden_states": embeds}


__all__ = ["SD"]
