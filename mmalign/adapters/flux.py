"""FLUX.1, dev and schnell (Black Forest Labs, 2024): a rectified flow over packed latent tokens."""

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
from mmalign.adapters._packing import pack, unpack
from mmalign.adapters._schedule import dynamic_shift, flow_level, flow_schedule
from mmalign.adapters._weights import Weights, make_trainable
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.types import Modality, NoiseLevel, Prompt

LONGEST = 512  # T5 tokens that the pipeline accepts


@dataclass
class Flux:
    """`LatentAdapter` around `FluxPipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Two guidances exist. `embedded_guidance` is the pipeline's `guidance_scale`: a number that guidance-distilled
    checkpoints (dev) take as input, the same for every prediction, the reference's too; checkpoints without it
    (schnell) ignore it. `guide` is the pipeline's `true_cfg_scale`: two predictions combined; published checkpoints
    are meant to run without it.

    Latents are (B, C, h, w); tokens and their positions are made inside `predict`.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    pipeline's default otherwise. `max_sequence_length`: T5 tokens, padded to (at most 512; schnell was made for 256).
    `decode_rows`: images decoded at once. `cached_prompts`: prompts whose conditions are kept on the CPU.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: torch.device | str | None = None
    resolution: int | None = None
    height: int | None = None
    width: int | None = None
    embedded_guidance: float = 3.5
    negative_prompt: str = ""
    max_sequence_length: int = 512
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: int = 8
    cached_prompts: int = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "FluxPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )

    module: nn.Module = field(init=False, repr=False, compare=False)
    pipeline: Any = field(init=False, repr=False, compare=False)
    weights: Weights = field(init=False, repr=False, compare=False)
    conditions: Conditions = field(init=False, repr=False, compare=False)
    images: LatentImages = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_sequence_length")
        if self.max_sequence_length > LONGEST:
            raise ConfigError(
                f"max_sequence_length: {self.max_sequence_length} is more than {LONGEST}, the most that "
                f"{self.pipeline_name} accepts."
            )

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        self.device = device = default_device(self.device)
        dtypes = {"default": torch_dtype(self.dtype), "vae": torch.float32}
        dtypes["transformer"] = input_dtype(self.train, self.dtype)
        self.pipeline = pipe = open_pipeline(
            self.pipeline_name,
            self.model,
            dtypes,
            revision=self.revision,
            variant=self.variant,
            absent=("image_encoder", "feature_extractor"),
        )
        native = (pipe.default_sample_size * pipe.vae_scale_factor,) * 2
        self.height, self.width = image_size(
            self.resolution, self.height, self.width, native, 2 * pipe.vae_scale_factor
        )
        self.latent_shape = (
            pipe.transformer.config.in_channels // 4,
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
        """`encoder_hidden_states` of T5 (B, L, D) and `pooled_projections` of CLIP (B, P)."""
        return self.conditions(texts_only(prompts, "flux"))

    def unconditional(self, rows: int) -> Condition:
        """The same of the negative prompt."""
        return self.conditions.unconditional(rows)

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The velocity, float32; the embedded guidance goes in where the checkpoint has a place for it."""
        height, width = x.shape[2:]
        dtype = input_dtype(self.train, self.dtype)
        with mixed_precision(x.device, self.dtype):
            tokens = self.module(
                hidden_states=pack(x).to(dtype),
                timestep=times.to(dtype) / 1000,
                guidance=self._guidance(x),
                img_ids=_positions(height // 2, width // 2, x.device),
                txt_ids=torch.zeros(condition["encoder_hidden_states"].shape[1], 3, device=x.device),
                **condition,
                return_dict=False,
            )[0]
        return unpack(tokens.float(), height, width)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (2207.12598) as the pipeline's `true_cfg_scale` does it: u + scale (c - u)."""
        return unconditional + scale * (conditional - unconditional)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas: evenly spaced, shifted by the number of tokens where the scheduler says so."""
        scheduler, steps = self.pipeline.scheduler, num_inference_steps
        mu = dynamic_shift(scheduler, (self.latent_shape[1] // 2) * (self.latent_shape[2] // 2))
        even = [1 - i / steps for i in range(steps)]
        return flow_schedule(scheduler, steps, default_device(self.device), mu, even)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, unshifted where the shift depends on resolution (dev)."""
        return flow_level(self.pipeline.scheduler, u)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images nominally in [0, 1], not clamped, with gradient to x."""
        return self.images.decode(x)

    def latents(self, output: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mode of the autoencoder's latents for images in [0, 1]."""
        return self.images.latents(output)

    def _guidance(self, x: Tensor) -> Tensor | None:
        if not self.pipeline.transformer.config.guidance_embeds:
            return None
        return torch.full((len(x),), self.embedded_guidance, device=x.device, dtype=torch.float32)

    def _encode_text(self, text: str) -> Condition:
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt=[text], prompt_2=None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_negative(self) -> Condition:
        return self._encode_text(self.negative_prompt)


def _positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """(0, row, column) of each image token, (rows · columns, 3); text tokens are at (0, 0, 0)."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()


__all__ = ["Flux"]
