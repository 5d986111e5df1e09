"""FLUX.1, dev and schnell (Black Forest Labs, 2024): a rectified flow over packed latent tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float

from mmalign.adapters.image._packing import pack, packed_frame, unpack
from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import token_count, warn_if_cut
from mmalign.adapters.loading.described import Configs, Frame, image_scale
from mmalign.adapters.loading.loaded import Loaded, load_into
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
from mmalign.adapters.loading.schedule import dynamic_shift, flow_level, flow_schedule
from mmalign.core.errors import ConfigError
from mmalign.core.options import AtLeastOne, NotNegative
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt

LONGEST = 512  # T5 tokens that the pipeline accepts


def _frame(configs: Configs) -> Frame:
    return packed_frame(configs, image_scale(configs))


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
    device: Device | str | None = None
    resolution: AtLeastOne | None = None
    height: AtLeastOne | None = None
    width: AtLeastOne | None = None
    embedded_guidance: NotNegative = 3.5
    negative_prompt: str = ""
    max_sequence_length: AtLeastOne = 512
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "FluxPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)

    frame = staticmethod(_frame)
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
        return load_into(self, "transformer", absent=("image_encoder", "feature_extractor"))

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` of T5 (B, L, D) and `pooled_projections` of CLIP (B, P)."""
        return self.loaded.conditions(texts_only(prompts, "flux"))

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

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas: evenly spaced, shifted by the number of tokens where the scheduler says so."""
        scheduler, steps = self.loaded.pipeline.scheduler, num_inference_steps
        mu = dynamic_shift(scheduler, (self.latent_shape[1] // 2) * (self.latent_shape[2] // 2))
        even = [1 - i / steps for i in range(steps)]
        return flow_schedule(scheduler, steps, default_device(self.device), mu, even)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, unshifted where the shift depends on resolution (dev)."""
        return flow_level(self.loaded.pipeline.scheduler, u)

    def _guidance(self, x: Tensor) -> Tensor | None:
        if not self.loaded.pipeline.transformer.config.guidance_embeds:
            return None
        return torch.full((len(x),), self.embedded_guidance, device=x.device, dtype=torch.float32)

    def _encode_text(self, text: str) -> Condition:
        tokens = token_count(self.loaded.pipeline.tokenizer_2, text)
        warn_if_cut("flux", text, tokens, self.max_sequence_length)
        embeds, pooled, _ = self.loaded.pipeline.encode_prompt(
            prompt=[text], prompt_2=None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """(0, row, column) of each image token, (rows · columns, 3); text tokens are at (0, 0, 0)."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()


__all__ = ["Flux"]
